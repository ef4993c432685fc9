// Starts the queues of a ring, and records whether all have started.
//
// Queues may register only after the kernel has accepted INIT's reply. From then on every request
// of the mount waits until all have registered. The relay opens the gate right after it sends that
// reply, and waits for a bounded time. Thread-safe; the lock is innermost.
#pragma once

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string>
#include <utility>

namespace zc {

class RingGate {
  public:
    // withdrawn: the kernel stops using the ring.
    enum class State { waiting, open, up, unused, failed, withdrawn };

    explicit RingGate(std::size_t queues) : missing_(queues) {}

    // A queue's thread: waits a bounded time for the gate to open. Returns the state.
    State wait_open(std::chrono::milliseconds time) {
        std::unique_lock guard(lock_);
        changed_.wait_for(guard, time, [this] { return state_ != State::waiting; });
        return state_;
    }
    // All entries of one queue are registered, or one failed (-errno).
    void registered(int error) {
        {
            const std::lock_guard guard(lock_);
            if (error < 0) {
                // The first failure has the reason; later ones only follow from it.
                error_ = error_ == 0 ? error : error_;
                state_ = state_ == State::withdrawn ? state_ : State::failed;
            } else if (--missing_ == 0 && state_ != State::waiting && state_ != State::unused) {
                state_ = State::up;  // even after open() timed out: the kernel uses it from now on
            }
        }
        changed_.notify_all();
    }

    // Lets the queues register and waits for all of them. Returns 0 or -errno (ETIMEDOUT).
    int open(std::chrono::milliseconds time) {
        std::unique_lock guard(lock_);
        if (state_ != State::waiting) {
            return -ECANCELED;
        }
        state_ = State::open;
        changed_.notify_all();
        changed_.wait_for(guard, time, [this] { return state_ != State::open; });
        if (state_ == State::open) {
            state_ = State::failed;
            error_ = -ETIMEDOUT;
        }
        return state_ == State::up ? 0 : error_;
    }
    // After open() failed: the mount continues over /dev/fuse, with this reason.
    void withdraw(std::string why) {
        const std::lock_guard guard(lock_);
        if (state_ == State::failed) {
            state_ = State::withdrawn;
            why_ = std::move(why);
        }
    }
    // The kernel stopped using the ring, or the connection ended.
    void shut() {
        {
            const std::lock_guard guard(lock_);
            if (state_ == State::waiting || state_ == State::open) {
                state_ = State::unused;
                error_ = -ECANCELED;
            }
        }
        changed_.notify_all();
    }

    State state() const {
        const std::lock_guard guard(lock_);
        return state_;
    }
    std::string why_withdrawn() const {
        const std::lock_guard guard(lock_);
        return state_ == State::withdrawn ? why_ : "";
    }
    std::size_t missing() const {
        const std::lock_guard guard(lock_);
        return missing_;
    }

  private:
    mutable std::mutex lock_;
    std::condition_variable changed_;
    State state_ = State::waiting;
    std::size_t missing_;  // queues that have not registered
    int error_ = 0;
    std::string why_;
};

}  // namespace zc
