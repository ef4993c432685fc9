#include "serve/sources/directory_source.hpp"

#include <dirent.h>
#include <fcntl.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "sys/files.hpp"
#include "sys/syscalls.hpp"

namespace zc {

namespace {

constexpr std::size_t kPathBytes = 4095;  // PATH_MAX without its NUL
constexpr std::size_t kReadBytes = 32 << 10;
constexpr std::size_t kUsualXattr = 256;
constexpr std::size_t kLargestXattr = 64 << 10;  // XATTR_SIZE_MAX and XATTR_LIST_MAX
// A FIFO in a file's place must not make the open wait for a writer.
constexpr int kRead = O_RDONLY | O_NONBLOCK | O_NOCTTY;

int to_forward(int error) noexcept {
    return error == -EXDEV ? kUpcall : error;
}

}  // namespace

// By the backing filesystem's own cookies: an entry is listed once in a directory that changes, as
// natively.
class DirectorySource::Names final : public Listing {
  public:
    explicit Names(sys::UniqueFd fd) noexcept : fd_(std::move(fd)) {}

    int seek(std::uint64_t position) override {
        if (position == position_ && position != 0) {
            return 0;
        }
        begin_ = end_ = 0;
        const int error = sys::seek_listing(fd_.get(), position);
        position_ = error < 0 ? position_ : position;
        return error;
    }

    int peek(Entry& into) override {
        if (begin_ >= end_) {
            if (const int error = fill(); error <= 0) {
                return error;
            }
        }
        const auto* raw = here();
        into = {raw->d_ino, static_cast<std::uint64_t>(raw->d_off), raw->d_type, raw->d_name,
                std::strlen(raw->d_name)};
        return 1;
    }

    void skip() override {
        position_ = static_cast<std::uint64_t>(here()->d_off);
        begin_ += here()->d_reclen;
    }

  private:
    const dirent64* here() const noexcept {
        return reinterpret_cast<const dirent64*>(buffer_.data() + begin_);
    }
    int fill() {
        buffer_.resize(kReadBytes);
        const auto n = sys::list(fd_.get(), buffer_.data(), buffer_.size());
        begin_ = 0;
        end_ = n > 0 ? static_cast<std::size_t>(n) : 0;
        return n > 0 ? 1 : static_cast<int>(n);
    }

    const sys::UniqueFd fd_;
    std::vector<std::byte> buffer_;  // as getdents64(2) fills it; made at the first use
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
};

class DirectorySource::At final : public SourceDirectory {
  public:
    // Without `own` it is the root.
    At(std::shared_ptr<const DirectorySource> source, sys::UniqueFd own) noexcept
        : source_(std::move(source)), own_(std::move(own)) {}

    int descriptor() const noexcept override { return own_ ? own_.get() : source_->fd_.get(); }
    void add_real(std::vector<int>& into) const override { into.push_back(descriptor()); }

    int find(const char* name, Found& into) const override {
        const int error = look(name, into.status);
        if (error == 0) {
            into.identity = identity_of(into.status, descriptor(), name);
        }
        return error;
    }

    sys::Remembered remembered(const char* name) const override {
        return sys::remembered(descriptor(), name);
    }

    // In pieces that the kernel takes for a path.
    int enter(std::string_view path, Ref& into) const override {
        sys::UniqueFd at;
        while (!path.empty()) {
            const auto cut = path.size() <= kPathBytes ? path.size() : path.rfind('/', kPathBytes);
            const std::string piece(path.substr(0, cut));
            path.remove_prefix(std::min(piece.size() + 1, path.size()));
            sys::UniqueFd next;
            const int error = source_->open_beneath(at ? at.get() : descriptor(), piece.c_str(),
                                                    O_PATH | O_DIRECTORY, next);
            if (error < 0) {
                return to_forward(error);
            }
            at = std::move(next);
        }
        into = std::make_shared<const At>(source_, std::move(at));
        return 0;
    }

    int status(const char* name, const Identity& wanted, struct ::statx& into) const override {
        const int error = look(name, into);
        return error != 0 ? error : compare(into, descriptor(), name, wanted);
    }

    int open(const char* name, const Identity& wanted, Opened& into) const override {
        auto file = std::make_shared<sys::UniqueFd>();
        int error = open_file(name, wanted, kRead | O_NOATIME, *file, into.status);
        if (error == -EPERM) {  // O_NOATIME is for owners (open(2))
            error = open_file(name, wanted, kRead, *file, into.status);
        }
        if (error != 0) {
            return error;
        }
        if (!S_ISREG(into.status.stx_mode)) {
            return S_ISDIR(into.status.stx_mode) ? -EISDIR : -ESTALE;
        }
        into.extents = {{std::move(file), next_file_id(), 0, kWholeFile}};
        return 0;
    }

    int hold(const char* name, const Identity& wanted, int flags, sys::UniqueFd& into,
             struct ::statx& status) const override {
        return open_file(name, wanted, flags, into, status);
    }

    int identify(int file, const char*, Found& into) const override {
        const int error = sys::status_of(file, "", source_->local_, into.status);
        if (error == 0) {
            into.identity = identity_of(into.status, file, "");
        }
        return error;
    }

    // The link is opened and compared first: its target is never that of another link which has
    // its name by now.
    int read_link(const char* name, const Identity& wanted, std::string& into) const override {
        std::array<char, 4096> target;  // PATH_MAX: the kernel takes no longer one
        if (wanted.type != S_IFLNK) {
            return -EINVAL;
        }
        sys::UniqueFd link;
        if (const int error = open_path(name, wanted, link); error != 0) {
            return error;
        }
        const auto size = sys::read_link(link.get(), target.data(), target.size());
        into.assign(target.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
        return size < 0 ? static_cast<int>(size) : 0;
    }

    int get_xattr(const char* name, const Identity& wanted, const char* attribute,
                  Bytes& into) const override {
        sys::UniqueFd file;
        if (const int error = open_path(name, wanted, file); error != 0) {
            return error;
        }
        return fill(into, [&](Bytes& value) {
            return sys::get_xattr(file.get(), attribute, value.data(), value.size());
        });
    }

    int list_xattrs(const char* name, const Identity& wanted, Bytes& into) const override {
        sys::UniqueFd file;
        if (const int error = open_path(name, wanted, file); error != 0) {
            return error;
        }
        return fill(into, [&](Bytes& names) {
            return sys::list_xattr(file.get(), reinterpret_cast<char*>(names.data()), names.size());
        });
    }

    int list(std::unique_ptr<Listing>& into, std::vector<struct ::statx>& versions) const override {
        sys::UniqueFd fd;
        int error = source_->open_beneath(descriptor(), ".", kRead | O_DIRECTORY, fd);
        if (error == -EACCES) {  // "." asks for permission to search, and listing needs none
            error = sys::reopen(descriptor(), kRead | O_DIRECTORY, fd);
        }
        struct ::statx status {};
        if (error == 0) {
            error = sys::status_of(fd.get(), "", source_->local_, status);
        }
        if (error == 0) {
            into = std::make_unique<Names>(std::move(fd));
            versions.push_back(status);
        }
        return error;
    }

    int marks(const char* name, Marks& into) const override {
        return read_marks(descriptor(), name, into);
    }

  private:
    int look(const char* name, struct ::statx& into) const {
        // No filesystem may be asked anything before its mount is known not to be our own.
        const int error = sys::status_of(descriptor(), name, true, into);
        if (error < 0) {
            return error;
        }
        if ((*name != '\0' || own_) && source_->other_mount(into)) {
            return kUpcall;
        }
        return source_->local_ ? 0 : sys::status_of(descriptor(), name, false, into);
    }

    int compare(const struct ::statx& status, int directory, const char* name,
                const Identity& wanted) const {
        const bool same =
            device_of(status) == source_->device_ && identity_of(status, directory, name) == wanted;
        return same ? 0 : -ESTALE;
    }

    int open_file(const char* name, const Identity& wanted, int flags, sys::UniqueFd& into,
                  struct ::statx& status) const {
        int error = source_->open_beneath(descriptor(), *name == '\0' ? "." : name, flags, into);
        if (error == 0) {
            error = sys::status_of(into.get(), "", source_->local_, status);
        }
        return error != 0 ? to_forward(error) : compare(status, into.get(), "", wanted);
    }

    int open_path(const char* name, const Identity& wanted, sys::UniqueFd& into) const {
        struct ::statx status {};
        return open_file(name, wanted, O_PATH, into, status);
    }

    // Clearing room for the largest value costs more than a second call for the few large ones.
    template <typename Read>
    static int fill(Bytes& into, Read read) {
        into.resize(kUsualXattr);
        ssize_t size = read(into);
        if (size == -ERANGE) {
            into.resize(kLargestXattr);
            size = read(into);
        }
        into.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
        return size < 0 ? static_cast<int>(size) : 0;
    }

    const std::shared_ptr<const DirectorySource> source_;
    const sys::UniqueFd own_;
};

DirectorySource::DirectorySource(sys::UniqueFd fd, const struct ::statx& status,
                                 bool walks) noexcept
    : fd_(std::move(fd)),
      device_(device_of(status)),
      is_directory_(S_ISDIR(status.stx_mode)),
      walks_(walks),
      local_(sys::is_local(fd_.get())),
      near_(local_ || sys::is_near(fd_.get())) {}

std::shared_ptr<const DirectorySource> DirectorySource::open(int fd) {
    sys::UniqueFd copy;
    if (const int error = sys::dup_cloexec(fd, copy); error < 0) {
        throw std::system_error(-error, std::generic_category(), "leasing a directory");
    }
    return make(std::move(copy), false, false);
}

std::shared_ptr<const DirectorySource> DirectorySource::open_any(sys::UniqueFd fd, bool walks) {
    return make(std::move(fd), walks, true);
}

std::shared_ptr<const DirectorySource> DirectorySource::make(sys::UniqueFd fd, bool walks,
                                                             bool any) {
    sys::UniqueFd probe;
    struct ::statx status {};
    int error = sys::status_of(fd.get(), "", any, status);
    const bool is_directory = S_ISDIR(status.stx_mode);
    if (error == 0 && !is_directory && !any) {
        error = -ENOTDIR;
    }
    if (error == 0 && is_directory && !walks) {
        error = sys::open_beneath(fd.get(), ".", O_PATH | O_DIRECTORY, probe);
        if (any && (error == -ENOSYS || error == -EPERM)) {
            walks = true;
            error = 0;
        }
    }
    if (error < 0) {
        throw std::system_error(-error, std::generic_category(), "leasing a directory");
    }
    return std::shared_ptr<const DirectorySource>(
        new DirectorySource(std::move(fd), status, walks));
}

int DirectorySource::open_beneath(int directory, const char* path, int flags,
                                  sys::UniqueFd& into) const {
    if (!is_directory_) {
        return (flags & O_DIRECTORY) != 0 ? -ENOTDIR
               : (flags & O_PATH) != 0    ? sys::dup_cloexec(directory, into)
                                          : sys::reopen(directory, flags, into);
    }
    return walks_ ? sys::walk_beneath(directory, path, flags, into)
                  : sys::open_beneath(directory, path, flags, into);
}

SourceDirectory::Ref DirectorySource::root() const {
    return std::make_shared<const At>(shared_from_this(), sys::UniqueFd());
}

SourceDirectory::Ref DirectorySource::adopt(sys::UniqueFd directory) const {
    return std::make_shared<const At>(shared_from_this(), std::move(directory));
}

int DirectorySource::filesystem_status(struct ::statvfs& into) const {
    return sys::filesystem_status(fd_.get(), into);
}

std::uint64_t DirectorySource::shown_ino(const struct ::statx& status) const noexcept {
    const auto device = device_of(status);
    return device == device_ ? status.stx_ino : mixed_ino(device, status.stx_ino);
}

Source::Volume DirectorySource::volume(std::uint32_t) const {
    return {device_};
}

bool DirectorySource::other_mount(const struct ::statx& status) const noexcept {
    return (status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0 || device_of(status) != device_;
}

Identity DirectorySource::identity_of(const struct ::statx& status, int directory,
                                      const char* name) {
    const std::uint64_t birth =
        (status.stx_mask & STATX_BTIME) != 0
            ? static_cast<std::uint64_t>(status.stx_btime.tv_sec) * 1'000'000'000 +
                  status.stx_btime.tv_nsec
            : sys::handle_hash(directory, name);
    return {status.stx_ino, birth, 0, static_cast<std::uint32_t>(status.stx_mode) & S_IFMT};
}

}  // namespace zc
