#include "serve/sources/backing_paths.hpp"

#include <fcntl.h>
#include <limits.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <utility>
#include <vector>

#include "serve/sources/source.hpp"
#include "sys/files.hpp"
#include "sys/syscalls.hpp"

namespace zc {

namespace {

constexpr int kLinkLimit = 40;  // as many symbolic links as the kernel follows
// O_NONBLOCK: a FIFO must not make the open wait for a writer.
constexpr int kReading = O_RDONLY | O_NONBLOCK | O_NOCTTY;

// The names of a path, the last one first, without those that lead nowhere.
void push_names(std::string_view path, std::vector<std::string>& names) {
    const auto before = names.size();
    while (!path.empty()) {
        const auto end = std::min(path.find('/'), path.size());
        const auto name = path.substr(0, end);
        if (!name.empty() && name != ".") {
            names.insert(names.begin() + static_cast<std::ptrdiff_t>(before), std::string(name));
        }
        path.remove_prefix(std::min(end + 1, path.size()));
    }
}

int require_regular(const struct ::statx& status) noexcept {
    if (S_ISREG(status.stx_mode)) {
        return 0;
    }
    return S_ISDIR(status.stx_mode) ? -EISDIR : -EINVAL;
}

int link_target(int link, std::string& into) {
    std::array<char, PATH_MAX> text{};
    const auto size = sys::read_link(link, text.data(), text.size());
    if (size < 0) {
        return static_cast<int>(size);
    }
    into.assign(text.data(), static_cast<std::size_t>(size));
    return 0;
}

int go_to_root(sys::UniqueFd& into) {
    return sys::step(AT_FDCWD, "/", into);
}

}  // namespace

void BackingPaths::refuse_device(std::uint32_t major, std::uint32_t minor) noexcept {
    refused_ = std::uint64_t{major} << 32 | minor;
}

int BackingPaths::check(int fd, struct ::statx& status) const {
    const int error = sys::status_of(fd, "", true, status);
    return error == 0 && device_of(status) == refused_ ? -ELOOP : error;
}

// From a directory, or from the root for an absolute path.
int BackingPaths::walk(const std::string& path, int from, sys::UniqueFd& into,
                       struct ::statx& status) const {
    std::vector<std::string> names;
    push_names(path, names);
    sys::UniqueFd at;
    int error = path.starts_with('/') ? go_to_root(at) : sys::dup_cloexec(from, at);
    error = error != 0 ? error : check(at.get(), status);
    int links = 0;
    while (error == 0 && !names.empty()) {
        sys::UniqueFd next;
        const auto name = std::move(names.back());
        names.pop_back();
        error = sys::step(at.get(), name.c_str(), next);
        error = error != 0 ? error : check(next.get(), status);
        if (error == 0 && !S_ISLNK(status.stx_mode)) {
            at = std::move(next);
        } else if (error == 0) {
            std::string target;
            error = ++links > kLinkLimit ? -ELOOP : link_target(next.get(), target);
            push_names(target, names);
            if (error == 0 && target.starts_with('/')) {
                error = go_to_root(at);
            }
        }
    }
    error = error != 0 ? error : sys::status_of(at.get(), "", false, status);
    into = std::move(at);
    return error;
}

int BackingPaths::directory(const BackingPath& path, std::shared_ptr<const Directory>& into) {
    const auto now = sys::coarse_milliseconds();
    {
        const std::lock_guard guard(lock_);
        const auto found = directories_.find(path.directory_id);
        if (found != directories_.end() && now - found->second->opened_ms < trust_ms_) {
            into = found->second;
            return 0;
        }
    }
    auto made = std::make_shared<Directory>();
    struct ::statx status {};
    if (const int error = walk(*path.directory, -1, made->fd, status); error != 0) {
        return error;
    }
    if (!S_ISDIR(status.stx_mode)) {
        return -ENOTDIR;
    }
    made->device = device_of(status);
    made->local = sys::is_local(made->fd.get());
    made->opened_ms = now;
    into = made;
    std::unordered_map<std::uint64_t, std::shared_ptr<const Directory>> dropped;
    const std::lock_guard guard(lock_);
    if (directories_.size() >= limit_) {
        dropped.swap(directories_);
    }
    std::shared_ptr<const Directory> kept = std::move(made);
    directories_[path.directory_id].swap(kept);
    dropped.emplace(0, std::move(kept));
    return 0;
}

int BackingPaths::look(const BackingPath& path, struct ::statx& into) {
    std::shared_ptr<const Directory> directory;
    if (const int error = this->directory(path, directory); error != 0) {
        return error;
    }
    const int at = directory->fd.get();
    const char* name = path.name.c_str();
    int error = sys::status_of(at, name, true, into);
    if (error == 0 && device_of(into) == refused_) {
        return -ELOOP;
    }
    if (error == 0 && S_ISLNK(into.stx_mode)) {
        sys::UniqueFd file;
        error = walk(path.name, at, file, into);
    } else if (error == 0 && (!directory->local || device_of(into) != directory->device)) {
        error = sys::status_of(at, name, false, into);
    }
    return error != 0 ? error : require_regular(into);
}

// O_NOATIME is for owners (open(2)).
int BackingPaths::open_directly(int directory, const char* name, sys::UniqueFd& into) const {
    int error = sys::open_beneath(directory, name, kReading | O_NOATIME, into);
    if (error == -EPERM) {
        error = sys::open_beneath(directory, name, kReading, into);
    }
    return error == -EAGAIN ? kUpcall : error;
}

int BackingPaths::open(const BackingPath& path, sys::UniqueFd& into, struct ::statx& status) {
    std::shared_ptr<const Directory> directory;
    if (const int error = this->directory(path, directory); error != 0) {
        return error;
    }
    int error = open_directly(directory->fd.get(), path.name.c_str(), into);
    if (error == 0) {
        error = sys::status_of(into.get(), "", false, status);
        return error != 0 ? error : require_regular(status);
    }
    if (error == kUpcall) {
        return error;
    }
    // A symbolic link, another mount, or no file that can be opened: what it is says which.
    sys::UniqueFd found;
    error = walk(path.name, directory->fd.get(), found, status);
    error = error != 0 ? error : require_regular(status);
    if (error == 0) {
        error = sys::reopen(found.get(), kReading | O_NOATIME, into);
        error = error == -EPERM ? sys::reopen(found.get(), kReading, into) : error;
    }
    return error == -EAGAIN ? kUpcall : error;
}

int acl_of(int file, std::string& into) {
    std::array<char, 4096> value{};
    const auto size = sys::get_xattr(file, kAccessAcl, value.data(), value.size());
    if (size < 0 && size != -ENODATA && size != -EOPNOTSUPP) {
        return static_cast<int>(size);
    }
    into.assign(value.data(), size < 0 ? 0 : static_cast<std::size_t>(size));
    return 0;
}

int BackingPaths::acl(const BackingPath& path, std::string& into) {
    std::shared_ptr<const Directory> directory;
    int error = this->directory(path, directory);
    if (error != 0) {
        return error;
    }
    sys::UniqueFd file;
    struct ::statx status {};
    const int at = directory->fd.get();
    if (sys::open_beneath(at, path.name.c_str(), O_PATH, file) != 0) {
        error = walk(path.name, at, file, status);
    } else {
        error = check(file.get(), status);
    }
    if (error == 0 && S_ISLNK(status.stx_mode)) {
        error = walk(path.name, at, file, status);
    }
    return error != 0 ? error : acl_of(file.get(), into);
}

void BackingPaths::clear() {
    std::unordered_map<std::uint64_t, std::shared_ptr<const Directory>> dropped;
    const std::lock_guard guard(lock_);
    dropped.swap(directories_);
}

}  // namespace zc
