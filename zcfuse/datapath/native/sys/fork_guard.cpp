#include "sys/fork_guard.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <array>
#include <atomic>

namespace zc::sys {

namespace {

constexpr std::size_t kPlaces = 4096;

// One more than the descriptor, so that 0 is a free place.
std::array<std::atomic<int>, kPlaces> guarded{};

// Only what may be called between fork and exec of a process with threads (signal-safety(7)).
void replace_in_child() {
    const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
    for (auto& place : guarded) {
        const int fd = place.exchange(0, std::memory_order_relaxed) - 1;
        if (fd >= 0 && null >= 0) {
            ::dup3(null, fd, O_CLOEXEC);
        } else if (fd >= 0) {
            ::close(fd);
        }
    }
    if (null >= 0) {
        ::close(null);
    }
}

}  // namespace

ForkGuard::ForkGuard(int fd) noexcept : place_(kPlaces) {
    [[maybe_unused]] static const int installed =
        ::pthread_atfork(nullptr, nullptr, replace_in_child);
    for (std::size_t place = 0; fd >= 0 && place < kPlaces; ++place) {
        int free = 0;
        if (guarded[place].compare_exchange_strong(free, fd + 1, std::memory_order_relaxed)) {
            place_ = place;
            return;
        }
    }
}

ForkGuard::~ForkGuard() {
    if (place_ < kPlaces) {
        guarded[place_].store(0, std::memory_order_relaxed);
    }
}

}  // namespace zc::sys
