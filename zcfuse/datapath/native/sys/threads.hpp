// Where and when the scheduler runs the calling thread.
#pragma once

namespace zc::sys {

// Returns false where the CPU is offline or not ours to use: then the thread runs where it may.
bool bind_to(unsigned cpu) noexcept;

// For a thread that only ever answers others. Woken, it waits until who is running there gives the
// CPU up: a client that waits for its answer does so at once, and one that does not (RELEASE) goes
// on to its next request, which is then served along with that one. sched(7): a SCHED_BATCH thread
// does not preempt. Measured on Linux 6.18 with two CPUs, warm open+read+close: 16 % less over
// io_uring, 9 % over /dev/fuse and 25 % there with two clients.
void yield_to_clients() noexcept;

}  // namespace zc::sys
