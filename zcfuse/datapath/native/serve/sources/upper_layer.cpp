#include "serve/sources/upper_layer.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "serve/sources/layer_marks.hpp"
#include "sys/changes.hpp"
#include "sys/copying.hpp"
#include "sys/files.hpp"

namespace zc {

namespace {

constexpr std::array<const char*, 2> kAcls{"system.posix_acl_access", "system.posix_acl_default"};
constexpr mode_t kOwnerOnly = 0700;
constexpr mode_t kModeBits = 07777;
constexpr std::size_t kListBytes = 32 << 10;
constexpr const char* kMetacopyMark = "trusted.overlay.metacopy";

struct ::timespec time_of(const statx_timestamp& time) noexcept {
    return {time.tv_sec, static_cast<long>(time.tv_nsec)};
}

int set_times_as(int file, const struct ::statx& status) noexcept {
    return sys::set_times(file, {time_of(status.stx_atime), time_of(status.stx_mtime)});
}

// A copy does not change what the directory shows, so its times stay.
class KeepTimes {
  public:
    explicit KeepTimes(int directory) noexcept
        : directory_(directory), known_(sys::status_of(directory, "", false, before_) == 0) {}
    KeepTimes(const KeepTimes&) = delete;
    KeepTimes& operator=(const KeepTimes&) = delete;
    ~KeepTimes() {
        if (known_) {
            set_times_as(directory_, before_);
        }
    }

  private:
    const int directory_;
    struct ::statx before_ {};
    const bool known_;
};

// What a copy is worth nothing without.
bool is_needed(std::string_view name) noexcept {
    return name.starts_with("system.posix_acl_") || name.starts_with("security.");
}

int open_directory(int directory, const char* name, sys::UniqueFd& into) noexcept {
    return sys::open_beneath(directory, name, O_RDONLY | O_DIRECTORY, into);
}

int remove_tree(int directory, const char* name);

int remove_entries(int directory) {
    std::vector<std::byte> buffer(kListBytes);
    ssize_t size = 0;
    while ((size = sys::list(directory, buffer.data(), buffer.size())) > 0) {
        for (std::size_t at = 0; at < static_cast<std::size_t>(size);) {
            const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
            at += entry->d_reclen;
            const std::string_view name(entry->d_name);
            if (name == "." || name == "..") {
                continue;
            }
            int error = sys::remove_name(directory, entry->d_name, false);
            if (error == -EISDIR || error == -EPERM) {
                error = remove_tree(directory, entry->d_name);
            }
            if (error != 0 && error != -ENOENT) {
                return error;
            }
        }
    }
    return static_cast<int>(size);
}

int remove_all_in(int directory, const char* name) {
    sys::UniqueFd opened;
    const int error = open_directory(directory, name, opened);
    return error == 0 ? remove_entries(opened.get()) : error;
}

int remove_tree(int directory, const char* name) {
    int error = sys::remove_name(directory, name, true);
    if (error != -ENOTEMPTY) {
        return error;
    }
    error = remove_all_in(directory, name);
    sys::UniqueFd closed;  // its mode forbids its owner to list it or to remove from it
    if (error == -EACCES && sys::open_beneath(directory, name, O_PATH | O_DIRECTORY, closed) == 0 &&
        sys::set_mode(closed.get(), kOwnerOnly) == 0) {
        error = remove_all_in(directory, name);
    }
    return error == 0 ? sys::remove_name(directory, name, true) : error;
}

int copy_extents(const std::vector<Extent>& extents, int to) {
    std::uint64_t at = 0;
    for (const auto& extent : extents) {
        const int error =
            extent.hole ? 0
                        : sys::copy_bytes(extent.file->get(), extent.offset, extent.length, to, at);
        if (error != 0) {
            return error;
        }
        at += extent.length;
    }
    return 0;
}

}  // namespace

UpperLayer::UpperLayer(sys::UniqueFd work, bool trusted, std::shared_ptr<CopyMemory> memory)
    : work_(std::move(work)), trusted_(trusted), memory_(std::move(memory)) {
    for (const auto& record : memory_ ? memory_->all() : std::vector<CopyMemory::Record>()) {
        if (const auto& copy = record.copy; copy.number != 0) {
            numbers_.keep({copy.after.ino, copy.birth}, copy.number);
        }
    }
}

std::string UpperLayer::new_name() const {
    return std::to_string(last_name_.fetch_add(1, std::memory_order_relaxed));
}

int UpperLayer::copy_xattrs(const LayerFile& from, int to) const {
    Bytes names;
    Bytes value;
    int error = from.directory.list_xattrs(from.name, from.identity, names);
    if (error == -EOPNOTSUPP || error == -ENODATA) {
        return 0;
    }
    std::string_view rest(reinterpret_cast<const char*>(names.data()), names.size());
    while (error == 0 && !rest.empty()) {
        const auto* name = rest.data();
        const std::string_view text(name);
        rest.remove_prefix(text.size() + 1);
        if (is_mark(text)) {
            continue;
        }
        error = from.directory.get_xattr(from.name, from.identity, name, value);
        error = error == 0 ? sys::set_xattr(to, name, value, 0) : error;
        const bool may_lack = !is_needed(text) || (!trusted_ && text.starts_with("security."));
        if (may_lack && (error == -EOPNOTSUPP || error == -EPERM || error == -ENODATA)) {
            error = 0;
        }
    }
    return error;
}

// The owner first: a change of owner clears set-id bits and capabilities.
int UpperLayer::copy_attributes(const LayerFile& from, const struct ::statx& status, int to) const {
    int error = sys::set_owner(to, status.stx_uid, status.stx_gid);
    error = error == 0 ? copy_xattrs(from, to) : error;
    if (error == 0 && !S_ISLNK(status.stx_mode)) {
        error = sys::set_mode(to, status.stx_mode & kModeBits);
    }
    return error == 0 ? set_times_as(to, status) : error;
}

int UpperLayer::place(const std::string& made, int to, const char* name) const {
    const std::lock_guard guard(lock_);
    const KeepTimes keep(to);
    return sys::rename_name(work_.get(), made.c_str(), to, name, RENAME_NOREPLACE);
}

// The original is in the copy's place, unless a client has changed the name since.
int UpperLayer::replace(const std::string& made, const Copy& copy) const {
    const auto& to = copy.to;
    const int directory = to.upper.descriptor();
    const std::lock_guard guard(lock_);
    const KeepTimes keep(directory);
    struct ::statx there {};
    const int error = sys::status_of(directory, to.name, false, there);
    if (error != 0 || there.stx_ino != copy.status.stx_ino) {
        return -EEXIST;
    }
    return sys::rename_name(work_.get(), made.c_str(), directory, to.name, 0);
}

int UpperLayer::copy_directory(const LayerFile& from, int to, const char* name) const {
    struct ::statx status {};
    const auto made = new_name();
    sys::UniqueFd copy;
    int error = from.directory.status(from.name, from.identity, status);
    if (error != 0) {
        return error;
    }
    error = sys::make_directory(work_.get(), made.c_str(), kOwnerOnly);
    error = error == 0 ? open_directory(work_.get(), made.c_str(), copy) : error;
    error = error == 0 ? copy_attributes(from, status, copy.get()) : error;
    error = error == 0 ? place(made, to, name) : error;
    if (error != 0) {
        sys::remove_name(work_.get(), made.c_str(), true);
    }
    return error;
}

int UpperLayer::copy_file(const LayerFile& from, const std::vector<Extent>& extents,
                          const CopyPlace& to, std::uint64_t& record) const {
    struct ::statx status {};
    if (const int error = from.directory.status(from.name, from.identity, status); error != 0) {
        return error;
    }
    const Copy copy{status, to, record};
    return S_ISREG(status.stx_mode) ? copy_regular(from, extents, copy) : copy_special(from, copy);
}

// Keeps the number, and tells a successor which file the copy is: it has no name yet. Another name
// of the original would show the same number, for another file.
int UpperLayer::note(int file, const Copy& copy) const {
    Found made;
    if (const int error = copy.to.upper.identify(file, copy.to.name, made); error != 0) {
        return error;
    }
    const auto born = CopyNumbers::born(made.status);
    const bool keeps = born && copy.status.stx_nlink == 1;
    if (keeps) {
        numbers_.keep(*born, copy.to.number);
    }
    if (memory_) {
        made.identity.type |= copy.to.metacopy ? kMetacopyType : 0;
        copy.record = memory_->begin(
            {copy.to.original, made.identity, born ? born->second : 0, keeps ? copy.to.number : 0});
    }
    return 0;
}

// Of a copy that gets no name. `made`: what it is called in the work directory; empty: nothing.
void UpperLayer::drop(const std::string& made, const Copy& copy) const {
    if (!made.empty()) {
        sys::remove_name(work_.get(), made.c_str(), false);
    }
    if (memory_) {
        memory_->drop(copy.record);
        copy.record = 0;
    }
}

int UpperLayer::fill(int file, const std::vector<Extent>& extents, const Copy& copy) const {
    if (extents.empty() && !copy.to.metacopy) {
        return 0;
    }
    int error = copy_extents(extents, file);
    error = error == 0 ? sys::set_size_of_open(file, copy.status.stx_size) : error;
    return error == 0 && copy.to.metacopy ? sys::set_xattr(file, kMetacopyMark, {}, 0) : error;
}

int UpperLayer::copy_regular(const LayerFile& from, const std::vector<Extent>& extents,
                             const Copy& wanted) const {
    const auto& status = wanted.status;
    const auto& to = wanted.to;
    sys::UniqueFd copy;
    const auto made = new_name();
    int error = to.replaces
                    ? -EOPNOTSUPP
                    : sys::create_file(work_.get(), ".", O_TMPFILE | O_RDWR, kOwnerOnly, copy);
    const bool named = error == -EOPNOTSUPP || error == -EISDIR;
    if (named) {
        error = sys::create_file(work_.get(), made.c_str(), O_CREAT | O_EXCL | O_RDWR, kOwnerOnly,
                                 copy);
    }
    error = error == 0 ? fill(copy.get(), extents, wanted) : error;
    error = error == 0 ? copy_attributes(from, status, copy.get()) : error;
    error = error == 0 ? note(copy.get(), wanted) : error;
    // The name must not be on the disk before the bytes are.
    error = error == 0 ? sys::sync_file(copy.get(), false) : error;
    if (error == 0 && named) {
        error = to.replaces ? replace(made, wanted) : place(made, to.upper.descriptor(), to.name);
    } else if (error == 0) {
        const std::lock_guard guard(lock_);
        const KeepTimes keep(to.upper.descriptor());
        error = sys::make_link(copy.get(), to.upper.descriptor(), to.name);
    }
    if (error != 0) {
        drop(named ? made : "", wanted);
    }
    return error;
}

int UpperLayer::make_special(const LayerFile& from, const struct ::statx& status,
                             const char* name) const {
    if (!S_ISLNK(status.stx_mode)) {
        return sys::make_node(work_.get(), name, (status.stx_mode & S_IFMT) | kOwnerOnly,
                              ::makedev(status.stx_rdev_major, status.stx_rdev_minor));
    }
    std::string target;
    const int error = from.directory.read_link(from.name, from.identity, target);
    return error == 0 ? sys::make_symlink(work_.get(), name, target.c_str()) : error;
}

int UpperLayer::copy_special(const LayerFile& from, const Copy& wanted) const {
    const auto made = new_name();
    int error = make_special(from, wanted.status, made.c_str());
    if (error != 0) {
        return error;
    }
    sys::UniqueFd copy;
    error = sys::step(work_.get(), made.c_str(), copy);
    error = error == 0 ? copy_attributes(from, wanted.status, copy.get()) : error;
    error = error == 0 ? note(copy.get(), wanted) : error;
    error = error == 0 ? place(made, wanted.to.upper.descriptor(), wanted.to.name) : error;
    if (error != 0) {
        drop(made, wanted);
    }
    return error;
}

int UpperLayer::cover(int directory, const char* name) {
    return sys::make_node(directory, name, S_IFCHR, ::makedev(0, 0));
}

namespace {

int set_mark(int directory, const char* name, const char* mark, std::string_view value) {
    sys::UniqueFd opened;
    const int error = sys::open_beneath(directory, name, O_PATH | O_DIRECTORY, opened);
    const std::span bytes(value.data(), value.size());
    return error == 0 ? sys::set_xattr(opened.get(), mark, std::as_bytes(bytes), 0) : error;
}

}  // namespace

int UpperLayer::set_opaque(int directory, const char* name) const {
    const auto* mark = trusted_ ? "trusted.overlay.opaque" : "user.overlay.opaque";
    return set_mark(directory, name, mark, "y");
}

int UpperLayer::set_redirect(int directory, const char* name, std::string_view leads_to) {
    return set_mark(directory, name, "trusted.overlay.redirect", leads_to);
}

int UpperLayer::replace_by_whiteout(int directory, const char* name, bool is_directory) const {
    const auto made = new_name();
    int error = cover(work_.get(), made.c_str());
    if (error != 0) {
        return error;
    }
    error = sys::rename_name(work_.get(), made.c_str(), directory, name,
                             is_directory ? RENAME_EXCHANGE : 0);
    if (error != 0) {
        sys::remove_name(work_.get(), made.c_str(), false);
    } else if (is_directory) {
        remove_tree(work_.get(), made.c_str());  // what stays is the next mount's to remove
    }
    return error;
}

int UpperLayer::remove_directory(int directory, const char* name) const {
    const int error = sys::remove_name(directory, name, true);
    if (error != -ENOTEMPTY) {
        return error;
    }
    const auto away = new_name();
    const int moved = sys::rename_name(directory, name, work_.get(), away.c_str(), 0);
    if (moved == 0) {
        remove_tree(work_.get(), away.c_str());
    }
    return moved;
}

int UpperLayer::empty(int directory, const char* name) const {
    const int error = set_opaque(directory, name);
    return error == 0 ? remove_all_in(directory, name) : error;
}

int UpperLayer::link_over_whiteout(int file, int directory, const char* name) const {
    const auto made = new_name();
    int error = sys::make_link(file, work_.get(), made.c_str());
    if (error == 0) {
        error = sys::rename_name(work_.get(), made.c_str(), directory, name, 0);
        if (error != 0) {
            sys::remove_name(work_.get(), made.c_str(), false);
        }
    }
    return error;
}

int UpperLayer::make_nursery(int like, Making& into) const {
    struct ::statx status {};
    into.nursery_name = new_name();
    int error = sys::status_of(like, "", false, status);
    error = error == 0 ? sys::make_directory(work_.get(), into.nursery_name.c_str(), kOwnerOnly)
                       : error;
    error =
        error == 0 ? open_directory(work_.get(), into.nursery_name.c_str(), into.nursery) : error;
    error = error == 0 ? sys::set_owner(into.nursery.get(), status.stx_uid, status.stx_gid) : error;
    for (const auto* acl : kAcls) {
        Bytes value(kListBytes);
        const auto size = sys::get_xattr(like, acl, value.data(), value.size());
        if (error == 0 && size >= 0) {
            value.resize(static_cast<std::size_t>(size));
            error = sys::set_xattr(into.nursery.get(), acl, value, 0);
        }
    }
    return error == 0 ? sys::set_mode(into.nursery.get(), status.stx_mode & kModeBits) : error;
}

void UpperLayer::drop_nursery(Making& making) const {
    if (!making.nursery_name.empty()) {
        making.nursery.reset();
        remove_tree(work_.get(), making.nursery_name.c_str());
        making.nursery_name.clear();
    }
}

}  // namespace zc
