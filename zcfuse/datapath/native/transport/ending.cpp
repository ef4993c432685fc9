#include "transport/ending.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mount.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <utility>

namespace zc {

Ending::Ending() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!event_) {
        throw std::system_error(errno, std::generic_category(), "eventfd");
    }
}

void Ending::set_abort(const std::string& abort_file, std::string mountpoint) {
    const std::lock_guard guard(lock_);
    abort_file_.reset(::open(abort_file.c_str(), O_WRONLY | O_CLOEXEC));
    mountpoint_ = std::move(mountpoint);
}

void Ending::set_last_resort(std::function<void()> sever) {
    const std::lock_guard guard(lock_);
    last_resort_ = std::move(sever);
}

bool Ending::record(const char* how, int error) noexcept {
    const std::lock_guard guard(lock_);
    if (over_.load(std::memory_order_relaxed)) {
        return false;
    }
    try {
        reason_ = how;
        if (error < 0) {
            reason_ += std::string(": ") + std::strerror(-error);
        }
    } catch (...) {
        reason_.clear();  // out of memory: the event still signals the end
    }
    over_.store(true, std::memory_order_release);
    const std::uint64_t one = 1;
    const auto written = ::write(event_.get(), &one, sizeof one);
    static_cast<void>(written);  // an eventfd accepts a 1 unless it is at its limit
    return true;
}

void Ending::ended(const char* how) noexcept {
    record(how, 0);
}

void Ending::failed(const char* what, int error) noexcept {
    if (expected()) {
        ended("stopped");
        return;
    }
    if (!record(what, error)) {
        return;
    }
    {
        const std::lock_guard guard(lock_);
        if (!last_resort_) {
            return;
        }
    }
    std::fprintf(stderr, "zcfuse: the data path failed (%s); ending the connection\n",
                 reason().c_str());
    abort_connection();
}

void Ending::abort_connection() noexcept {
    sys::UniqueFd abort_file;
    std::string mountpoint;
    std::function<void()> last_resort;
    {
        const std::lock_guard guard(lock_);
        abort_file = std::move(abort_file_);
        mountpoint.swap(mountpoint_);
        last_resort.swap(last_resort_);
    }
    if (abort_file && ::write(abort_file.get(), "1", 1) == 1) {
        return;
    }
    if (!mountpoint.empty() &&
        ::umount2(mountpoint.c_str(), MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW) == 0) {
        return;
    }
    if (last_resort) {
        last_resort();
    }
}

std::string Ending::reason() const {
    const std::lock_guard guard(lock_);
    return over_.load(std::memory_order_relaxed) && reason_.empty() ? "ended" : reason_;
}

}  // namespace zc
