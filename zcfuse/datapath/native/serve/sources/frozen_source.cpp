#include "serve/sources/frozen_source.hpp"

#include <fcntl.h>
#include <limits.h>

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

#include "serve/mtime.hpp"
#include "sys/files.hpp"
#include "sys/syscalls.hpp"

namespace zc {

namespace {

constexpr std::uint64_t kDots = 2;
constexpr unsigned kTypeShift = 12;  // from a mode to d_type
constexpr std::size_t kLongestName = 255;
// Of RLIMIT_NOFILE, for files that pieces lie in, and for directories of them.
constexpr std::size_t kDeviceShare = 16;
constexpr std::size_t kLeastDevices = 8;
constexpr std::int64_t kTrustMs = 1000;
// O_NONBLOCK: a FIFO in a file's place must not make the open wait for a writer.
constexpr int kRead = O_RDONLY | O_NONBLOCK | O_NOCTTY;

struct ::statx status_of(const ErofsImage::Inode& from) noexcept {
    struct ::statx status {};
    const auto blocks = from.size / kBlockBytes + (from.size % kBlockBytes != 0 ? 1 : 0);
    status.stx_mask = STATX_BASIC_STATS;
    status.stx_blksize = kBlockBytes;
    status.stx_nlink = from.nlink;
    status.stx_uid = from.uid;
    status.stx_gid = from.gid;
    status.stx_mode = static_cast<std::uint16_t>(from.mode);
    status.stx_ino = from.nid;
    status.stx_size = from.size;
    status.stx_blocks = blocks * (kBlockBytes / kSectorBytes);
    status.stx_mtime.tv_sec = from.mtime_s;
    status.stx_mtime.tv_nsec = from.mtime_ns;
    status.stx_atime = status.stx_ctime = status.stx_mtime;
    status.stx_rdev_major = from.rdev_major;
    status.stx_rdev_minor = from.rdev_minor;
    return status;
}

// A redirect leads down from a root: an absolute path without dots.
bool is_below_root(std::string_view path) noexcept {
    if (!path.starts_with('/') || path.size() > PATH_MAX) {
        return false;
    }
    bool any = false;
    while (!path.empty()) {
        path.remove_prefix(1);
        const auto name = path.substr(0, path.find('/'));
        if (name == "." || name == "..") {
            return false;
        }
        any = any || !name.empty();
        path.remove_prefix(name.size());
    }
    return any;
}

// O_NOATIME is for owners, and O_PATH takes no such flag (open(2)).
int open_file(int directory, const char* path, int flags, sys::UniqueFd& into) {
    if ((flags & O_PATH) != 0) {
        return sys::open_beneath(directory, path, flags, into);
    }
    const int error = sys::open_beneath(directory, path, flags | O_NOATIME, into);
    return error == -EPERM ? sys::open_beneath(directory, path, flags, into) : error;
}

}  // namespace

// The status of an open file whose bytes are those of one backing file.
class FrozenSource::Unchanged final : public OpenStatus {
  public:
    explicit Unchanged(const struct ::statx& status) noexcept : status_(status) {}
    int status(const FileLease&, struct ::statx& into) const override {
        into = status_;
        return 0;
    }

  private:
    const struct ::statx status_;
};

// Positions 0 and 1 are the dots; then come those of the image, moved by two.
class FrozenSource::Names final : public Listing {
  public:
    Names(std::shared_ptr<const FrozenSource> source, const ErofsImage::Inode& directory) noexcept
        : source_(std::move(source)), directory_(directory) {}

    int seek(std::uint64_t position) override {
        position_ = position;
        entries_.clear();
        at_ = 0;
        return 0;
    }

    int peek(Entry& into) override {
        std::uint64_t nid = directory_.nid;
        if (position_ < kDots) {
            name_.assign(position_ + 1, '.');
            next_ = position_ + 1;
            const int error = position_ == 0 ? 0 : source_->image_->lookup(directory_, name_, nid);
            if (error != 0) {
                return error == -ENOENT ? -EIO : error;
            }
        } else if (const int found = peek_image(nid); found != 1) {
            return found;
        }
        if (const int error = source_->describe(nid, found_); error != 0) {
            return error;
        }
        into = {found_.status.stx_ino, next_,
                static_cast<unsigned char>(found_.status.stx_mode >> kTypeShift), name_.c_str(),
                name_.size()};
        return 1;
    }

    void skip() override {
        if (position_ >= kDots) {
            ++at_;
        }
        position_ = next_;
    }

    bool found(Found& into) override {
        into = found_;
        return true;
    }

  private:
    int peek_image(std::uint64_t& nid) {
        for (;; ++at_) {
            if (at_ >= entries_.size()) {
                const auto from = entries_.empty() ? position_ - kDots : entries_.back().next;
                at_ = 0;
                const int error = source_->image_->entries(directory_, from, entries_);
                if (error != 0 || entries_.empty()) {
                    return error;
                }
            }
            const auto& entry = entries_[at_];
            if (entry.name != "." && entry.name != "..") {
                name_ = entry.name;
                next_ = entry.next + kDots;
                nid = entry.nid;
                return 1;
            }
        }
    }

    const std::shared_ptr<const FrozenSource> source_;
    const ErofsImage::Inode directory_;
    std::vector<ErofsImage::Entry> entries_;  // of one block
    std::size_t at_ = 0;
    std::uint64_t next_ = 0;
    Found found_;  // the entry at hand
    std::string name_;
};

class FrozenSource::At final : public SourceDirectory {
  public:
    At(std::shared_ptr<const FrozenSource> source, const ErofsImage::Inode& inode) noexcept
        : source_(std::move(source)), inode_(inode) {}

    int find(const char* name, Found& into) const override {
        auto nid = inode_.nid;
        const int error = *name == '\0' ? 0 : image().lookup(inode_, name, nid);
        return error != 0 ? error : source_->describe(nid, into);
    }

    int enter(std::string_view path, Ref& into) const override {
        auto inode = inode_;
        int error = for_each_name(path, [&](std::string_view name) {
            std::uint64_t nid = 0;
            const int missing = image().lookup(inode, name, nid);
            return missing != 0 ? missing : image().inode(nid, inode);
        });
        error = error == 0 && !S_ISDIR(inode.mode) ? -ENOTDIR : error;
        if (error == 0) {
            into = std::make_shared<const At>(source_, inode);
        }
        return error;
    }

    int status(const char*, const Identity& wanted, struct ::statx& into) const override {
        ErofsImage::Inode inode;
        const int error = inode_of(wanted, inode);
        into = status_of(inode);
        return error;
    }

    int open(const char*, const Identity& wanted, Opened& into) const override {
        ErofsImage::Inode inode;
        ErofsImage::Data place;
        if (const int error = place_of(wanted, inode, place); error != 0) {
            return error;
        }
        into.status = status_of(inode);
        if (!place.redirect) {
            return source_->open_pieces(place.pieces, into.extents);
        }
        auto file = std::make_shared<sys::UniqueFd>();
        into.shown = std::make_shared<const Unchanged>(into.status);
        // The status of the backing file: its mtime changes with the bytes.
        const int error = source_->open_whole(inode, *place.redirect, kRead, *file, into.status);
        if (error == 0) {
            into.extents = {{std::move(file), next_file_id(), 0, kWholeFile}};
        }
        return error;
    }

    int reopen(const char*, const Identity& wanted, struct ::statx& into) const override {
        ErofsImage::Inode inode;
        ErofsImage::Data place;
        if (const int error = place_of(wanted, inode, place); error != 0) {
            return error;
        }
        if (place.redirect) {
            sys::UniqueFd file;
            return source_->open_whole(inode, *place.redirect, O_PATH, file, into);
        }
        into = status_of(inode);
        std::vector<Extent> extents;
        return source_->open_pieces(place.pieces, extents);
    }

    int read_link(const char*, const Identity& wanted, std::string& into) const override {
        ErofsImage::Inode inode;
        const int error = inode_of(wanted, inode);
        return error != 0 ? error : image().target(inode, into);
    }

    int get_xattr(const char*, const Identity& wanted, const char* attribute,
                  Bytes& into) const override {
        ErofsImage::Inode inode;
        std::string value;
        int error = inode_of(wanted, inode);
        error = error != 0 ? error : image().xattr(inode, attribute, value);
        const auto bytes = std::as_bytes(std::span(value));
        into.assign(bytes.begin(), bytes.end());
        return error;
    }

    int list_xattrs(const char*, const Identity& wanted, Bytes& into) const override {
        ErofsImage::Inode inode;
        std::vector<std::string> names;
        int error = inode_of(wanted, inode);
        error = error != 0 ? error : image().xattr_names(inode, names);
        into.clear();
        for (const auto& name : names) {
            const auto bytes = std::as_bytes(std::span(name.c_str(), name.size() + 1));
            into.insert(into.end(), bytes.begin(), bytes.end());
        }
        return error;
    }

    int list(std::unique_ptr<Listing>& into, std::vector<struct ::statx>&) const override {
        into = std::make_unique<Names>(source_, inode_);
        return 0;
    }

  private:
    const ErofsImage& image() const noexcept { return *source_->image_; }
    int inode_of(const Identity& wanted, ErofsImage::Inode& into) const {
        const int error = image().inode(wanted.ino, into);
        return error != 0 ? error : (into.mode & S_IFMT) == wanted.type ? 0 : -ESTALE;
    }
    int place_of(const Identity& wanted, ErofsImage::Inode& inode, ErofsImage::Data& into) const {
        const int error = inode_of(wanted, inode);
        return error != 0 ? error : image().place(inode, into);
    }

    const std::shared_ptr<const FrozenSource> source_;
    const ErofsImage::Inode inode_;
};

FrozenSource::FrozenSource(std::shared_ptr<const ErofsImage> image, std::vector<Device> devices,
                           std::vector<sys::UniqueFd> roots, std::uint64_t refused)
    : image_(std::move(image)),
      devices_(std::move(devices)),
      roots_(std::move(roots)),
      limit_(std::max(sys::descriptor_limit() / kDeviceShare, kLeastDevices)),
      paths_(kTrustMs, limit_) {
    paths_.refuse_device(static_cast<std::uint32_t>(refused >> 32),
                         static_cast<std::uint32_t>(refused));
}

std::shared_ptr<const FrozenSource> FrozenSource::make(std::shared_ptr<const ErofsImage> image,
                                                       std::vector<Device> devices,
                                                       std::vector<sys::UniqueFd> roots,
                                                       std::uint64_t refused) {
    return std::shared_ptr<const FrozenSource>(
        new FrozenSource(std::move(image), std::move(devices), std::move(roots), refused));
}

SourceDirectory::Ref FrozenSource::root() const {
    ErofsImage::Inode inode;
    if (image_->inode(image_->root(), inode) != 0) {
        inode.nid = image_->root();  // every use of it says what is wrong
    }
    return std::make_shared<const At>(shared_from_this(), inode);
}

int FrozenSource::filesystem_status(struct ::statvfs& into) const {
    into = {};
    into.f_bsize = into.f_frsize = kBlockBytes;
    into.f_blocks = image_->size() / kBlockBytes + (image_->size() % kBlockBytes != 0 ? 1 : 0);
    into.f_namemax = kLongestName;
    return 0;
}

int FrozenSource::describe(std::uint64_t nid, Found& into) const {
    ErofsImage::Inode inode;
    const int error = image_->inode(nid, inode);
    into.status = status_of(inode);
    into.identity = {nid, 0, 0, inode.mode & S_IFMT};
    return error;
}

int FrozenSource::open_whole(const ErofsImage::Inode& inode, const std::string& redirect, int flags,
                             sys::UniqueFd& into, struct ::statx& status) const {
    if (!is_below_root(redirect)) {
        return -EIO;
    }
    for (const auto& root : roots_) {
        int error = open_file(root.get(), redirect.c_str() + 1, flags, into);
        if (error == -ENOENT || error == -ENOTDIR) {
            continue;
        }
        if (error == 0) {
            error = sys::status_of(into.get(), "", false, status);
        }
        if (error != 0) {
            return error == -EXDEV ? kUpcall : error;  // control enters other mounts
        }
        return S_ISREG(status.stx_mode) && status.stx_size == inode.size ? 0 : -ESTALE;
    }
    return -EIO;  // as overlayfs, where the file is gone
}

int FrozenSource::open_pieces(const std::vector<ErofsImage::Run>& pieces,
                              std::vector<Extent>& into) const {
    for (const auto& piece : pieces) {
        Extent extent;
        if (piece.device == ErofsImage::kHole) {
            extent = {hole_file(), next_file_id(), 0, piece.length, true};
            if (extent.file == nullptr) {
                return -ENFILE;
            }
        } else if (const int error = device(piece.device, extent); error != 0) {
            return error;
        } else {
            extent.offset = piece.offset;
            extent.length = piece.length;
        }
        into.push_back(std::move(extent));
    }
    return 0;
}

// Opens a file that pieces lie in, or uses its descriptor if the file is still as it was.
int FrozenSource::device(std::int32_t number, Extent& into) const {
    if (number == 0) {
        into.file = image_->file();
        into.id = image_id_;
        return 0;
    }
    const auto& wanted = devices_[static_cast<std::size_t>(number) - 1];
    const auto is_same = [&](const struct ::statx& status) {
        return status.stx_size == wanted.size &&
               mtime_of(status) == static_cast<std::uint64_t>(wanted.mtime_ns);
    };
    struct ::statx status {};
    OpenDevice found;
    {
        const std::lock_guard guard(lock_);
        if (const auto at = open_.find(number); at != open_.end()) {
            found = at->second;
        }
    }
    if (!found.file || sys::status_of(found.file->get(), "", false, status) != 0 ||
        !is_same(status)) {
        const auto slash = wanted.path.rfind('/') + 1;
        const BackingPath path{std::make_shared<const std::string>(wanted.path.substr(0, slash)),
                               static_cast<std::uint64_t>(number), wanted.path.substr(slash)};
        auto file = std::make_shared<sys::UniqueFd>();
        if (const int error = paths_.open(path, *file, status); error != 0) {
            return error;
        }
        if (!is_same(status)) {
            return -ESTALE;
        }
        found = {std::move(file), next_file_id()};
        keep(number, found);
    }
    into.file = found.file;
    into.id = found.id;
    return 0;
}

void FrozenSource::keep(std::int32_t number, OpenDevice device) const {
    std::unordered_map<std::int32_t, OpenDevice> dropped;  // behind the lock
    const std::lock_guard guard(lock_);
    if (open_.size() >= limit_) {
        dropped.swap(open_);
    }
    std::swap(open_[number], device);
    dropped.emplace(0, std::move(device));  // 0 is the image, which is never here
}

}  // namespace zc
