// The threads of a data path: what each does, how it starts and how it is asked to end.
//
// A thread shares the state, and no other thread needs what it owns. One that is stuck in a system
// call on a backing file can therefore be left behind.
#pragma once

#include <functional>
#include <latch>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "serve/state.hpp"

namespace zc {

// How many threads serve requests: `wanted`, or for 0 one for each processor, 2 to 8.
unsigned serving_threads(unsigned wanted) noexcept;

// `make` runs in the thread, and returns the work.
struct ThreadPlan {
    const char* name;
    std::function<std::function<void()>()> make;
};

// All threads of a data path: one for each channel, the session's first, and those beside them.
std::vector<ThreadPlan> threads_of(const std::shared_ptr<State>& state,
                                   std::span<const std::shared_ptr<const DeviceChannel>> channels);

// Starts a thread that is counted in `state` and named. `ready` is counted down once its work is
// made, or cannot be. Throws std::system_error.
std::thread started(const std::shared_ptr<State>& state, ThreadPlan plan,
                    const std::shared_ptr<std::latch>& ready);

// Has every thread end that waits for something of the data path's own.
void ask_to_end(State& state);
// Has a thread's blocking read return EINTR, so that it sees that it shall end. Call
// allow_nudges() first.
void allow_nudges();
void nudge(std::thread& thread);

}  // namespace zc
