// Decides whether an mtime proves that a file is unchanged.
#pragma once

#include <sys/stat.h>
#include <time.h>

#include <cstdint>

namespace zc {

inline std::uint64_t mtime_of(const struct ::statx& status) noexcept {
    return static_cast<std::uint64_t>(status.stx_mtime.tv_sec) * 1'000'000'000 +
           status.stx_mtime.tv_nsec;
}

// A file may change twice within one tick of its filesystem's clock, with one mtime. Until that has
// moved on, the mtime proves nothing: a tick of the kernel's coarse clock is 10 ms at most, and a
// filesystem that keeps no fractions counts in steps of up to 2 s. Returns more than the tick.
inline std::int64_t tick_ns(std::int64_t time_ns) noexcept {
    return time_ns % 1'000'000'000 != 0 ? 50'000'000 : 2'100'000'000;
}

inline bool is_settled(const statx_timestamp& time) noexcept {
    struct ::timespec now {};
    ::clock_gettime(CLOCK_REALTIME, &now);
    const auto age = (now.tv_sec - time.tv_sec) * 1'000'000'000 + now.tv_nsec - time.tv_nsec;
    const auto tick = tick_ns(time.tv_nsec);
    return age >= tick || age <= -tick;
}

inline bool mtime_is_settled(const struct ::statx& status) noexcept {
    return is_settled(status.stx_mtime);
}

}  // namespace zc
