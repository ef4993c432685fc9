// Which requests may take long in the backing filesystem. Where several users share a mount, a
// thread for calls (CallQueue) makes those, and not a serving thread: users take turns there, and
// each occupies a part of the threads.
//
// READs have threads of their own (read_job.hpp).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>

#include "abi/fuse.hpp"
#include "serve/latency.hpp"
#include "sys/files.hpp"

namespace zc {

// How long a request may wait for the backing filesystem, wherever that is near.
enum class Patience : std::uint8_t {
    none,     // waits for nothing, or no client waits for it: any thread answers it
    names,    // looks at a name or at attributes: waits for a disk only if no cache has them
    looks,    // reads a directory, a link or attributes of which no cache is known
    changes,  // changes something: waits for the filesystem's journal, and while it is frozen
    long_     // as long as there are bytes
};
Patience patience_for(const abi::InHeader& header, std::span<const std::byte> body) noexcept;

// Whether the backing filesystems took long a moment ago, as told by the threads that called them.
// Any thread.
class Slowness {
  public:
    void note(Clock::duration taken) noexcept {
        if (taken > kLong) {
            until_ms_.store(sys::coarse_milliseconds() + kRemembered.count(),
                            std::memory_order_relaxed);
        }
    }
    bool is_slow() const noexcept {
        const auto until = until_ms_.load(std::memory_order_relaxed);
        return until != 0 && sys::coarse_milliseconds() < until;
    }

  private:
    // More than a disk takes, and than a busy processor makes a thread wait.
    static constexpr std::chrono::milliseconds kLong{200};
    static constexpr std::chrono::milliseconds kRemembered{5000};

    std::atomic<std::int64_t> until_ms_{0};
};

}  // namespace zc
