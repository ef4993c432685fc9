// Faults that a test sets in the environment variable ZCFUSE_FAULTS:
//
//     call:what[:after=N][:count=M][,...]      e.g. "splice_in:EIO:after=3:count=1,preadv:short"
//
// `what` is an errno's name, `short` (the call works on half of its bytes), or `slow` (half a
// second passes first). Without faults the cost is one relaxed load and a branch that is never
// taken. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

namespace zc::sys {

enum class Call : std::uint8_t {
    preadv,
    splice_in,
    splice_out,
    vmsplice,
    mmap,
    mlock,
    madvise,
    writev,
    read,
    send,
    recv,
    backing_open,
    clone,
    setsockopt,
    pipe,
    dup,
    open,
    statx,
    getdents,
    preadv_nowait,
    uring_setup,
    uring_register,
    uring_commit,
    change,
    pwrite,
    fsync,
    count_,
};

// The behaviour of a call: 0 as usual, negative: fail with that -errno, 1: half of its bytes.
using Fault = int;
inline constexpr Fault kShort = 1;
inline constexpr Fault kSlow = 2;  // handled by next_fault(), which returns 0

extern std::atomic<bool> faults_armed;
Fault next_fault(Call call) noexcept;
// Whether the next such call would be slow. Leaves the fault to that call.
bool is_slow_next(Call call) noexcept;

inline Fault fault(Call call) noexcept {
    return faults_armed.load(std::memory_order_relaxed) ? next_fault(call) : 0;
}

// Replaces all faults; an empty text disarms. Returns false, and disarms, on a syntax error.
bool arm_faults(std::string_view text);

}  // namespace zc::sys
