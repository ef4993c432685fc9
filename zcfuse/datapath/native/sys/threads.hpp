// Where and when the scheduler runs a thread of this process.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace zc::sys {

// Returns false where the CPU is offline or not ours to use: then the thread runs where it may.
bool bind_to(unsigned cpu) noexcept;

// For threads that only ever answer others.
// batch: woken, it waits until who is running there gives the CPU up. A client that waits for its
// answer does so at once, and one that does not (RELEASE) goes on to its next request, which is
// then served along with that one. sched(7): a SCHED_BATCH thread does not preempt. Measured on
// Linux 6.18 with two CPUs, warm open+read+close: 16 % less over io_uring, 9 % over /dev/fuse and
// 25 % there with two clients.
// idle: runs only where nothing else wants to, and its CPU counts as idle.
enum class Policy : std::uint8_t { batch, idle };
// 0 or -errno: -ESRCH for a thread that is gone, -EPERM for one that may not leave SCHED_IDLE.
int set_policy(pid_t tid, Policy policy) noexcept;

// Tries it with the calling thread, which stays SCHED_IDLE where it cannot be left. Returns "" or
// why a thread of this process must not become SCHED_IDLE.
std::string why_not_idle();

// What the scheduler has counted for a thread (/proc/PID/task/TID/schedstat); zeros where it does
// not say.
struct RunTimes {
    std::uint64_t waited_ns = 0;  // runnable, without a CPU
    std::uint64_t runs = 0;       // times that it got one
};
RunTimes run_times(pid_t tid) noexcept;
// It runs, or waits for a CPU.
bool is_runnable(pid_t tid) noexcept;

}  // namespace zc::sys
