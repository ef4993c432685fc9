#include "sys/inotify.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "sys/proc_path.hpp"

namespace zc::sys {

int NameChanges::open() noexcept {
    const int queue = ::inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (queue < 0) {
        return -errno;
    }
    queue_.reset(queue);
    return 0;
}

int NameChanges::watch(int directory, bool attributes) noexcept {
    constexpr std::uint32_t kNames =
        IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR | IN_MASK_ADD;
    const auto mask = kNames | (attributes ? std::uint32_t{IN_ATTRIB} : 0);
    const int number = ::inotify_add_watch(queue_.get(), ProcPath(directory).get(), mask);
    return number < 0 ? -errno : number;
}

void NameChanges::remove(int watch) noexcept {
    ::inotify_rm_watch(queue_.get(), watch);
}

ssize_t NameChanges::read(std::span<std::byte> buffer) noexcept {
    const auto n = ::read(queue_.get(), buffer.data(), buffer.size());
    return n < 0 ? -errno : n;
}

bool NameChanges::next(std::span<std::byte>& bytes, Change& into) noexcept {
    inotify_event event{};
    if (bytes.size() < sizeof event) {
        return false;
    }
    std::memcpy(&event, bytes.data(), sizeof event);
    if (bytes.size() < sizeof event + event.len) {
        return false;
    }
    // The kernel pads the name with NULs.
    const auto* name = reinterpret_cast<const char*>(bytes.data() + sizeof event);
    into = {event.wd, event.mask, {name, ::strnlen(name, event.len)}};
    bytes = bytes.subspan(sizeof event + event.len);
    return true;
}

}  // namespace zc::sys
