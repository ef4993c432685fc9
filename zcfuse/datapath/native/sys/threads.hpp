// Where and when the scheduler runs a thread of this process.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace zc::sys {

// Returns false if the CPU is offline or not permitted; the thread then runs where it may.
bool bind_to(unsigned cpu) noexcept;

// For threads that only answer others. batch: when woken, it waits until the running thread gives
// up the CPU. A client that waits for its answer does so at once. A client that does not wait
// (RELEASE) continues to its next request, and the thread serves both together. sched(7): a
// SCHED_BATCH thread does not preempt. Measured on Linux 6.18 with two CPUs, warm open+read+close:
// 16 % less over io_uring, 9 % over /dev/fuse and 25 % there with two clients. idle: runs only if
// no other thread wants the CPU, and the CPU counts as idle. fifo: runs before every ordinary
// thread; it needs CAP_SYS_NICE.
enum class Policy : std::uint8_t { batch, idle, fifo };
// 0 or -errno: -ESRCH for an ended thread, -EPERM for one that may not leave SCHED_IDLE.
int set_policy(pid_t tid, Policy policy) noexcept;

// Tries it with the calling thread, which stays SCHED_IDLE if it cannot leave. Returns "" or why a
// thread of this process must not become SCHED_IDLE.
std::string why_not_idle();

// The scheduler's counts for a thread (/proc/PID/task/TID/schedstat); zeros if unavailable.
struct RunTimes {
    std::uint64_t waited_ns = 0;  // runnable, without a CPU
    std::uint64_t runs = 0;       // times that it got a CPU
};
RunTimes run_times(pid_t tid) noexcept;
// Whether it runs or waits for a CPU.
bool is_runnable(pid_t tid) noexcept;

}  // namespace zc::sys
