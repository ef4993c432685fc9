// Which process of a mount serves, and how the ones before it ended.
#pragma once

#include <time.h>

#include <algorithm>
#include <cstdint>

#include "holder/messages.hpp"

namespace zc::holder {

inline std::uint64_t nanoseconds(clockid_t clock) noexcept {
    timespec now{};
    ::clock_gettime(clock, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

class History {
  public:
    explicit History(pid_t holder) noexcept { go_.holder = static_cast<std::uint64_t>(holder); }

    // The message for the next process.
    const Go& go() const noexcept { return go_; }
    void begin_generation() noexcept { ++go_.generation; }

    // A process that served, or was about to, has ended.
    void ended(int signal, int status, bool planned) noexcept {
        if (go_.since_ns == 0) {
            go_.since_ns = nanoseconds(CLOCK_MONOTONIC);
        }
        go_.deaths += planned ? 0 : 1;
        if (go_.kept == go_.last.size()) {
            std::move(go_.last.begin() + 1, go_.last.end(), go_.last.begin());
            --go_.kept;
        }
        go_.last[go_.kept++] = {static_cast<std::int64_t>(nanoseconds(CLOCK_REALTIME)),
                                0,
                                signal,
                                status,
                                planned ? 1U : 0U,
                                0};
    }
    // Clients are answered; the pause is over.
    void answered() noexcept {
        const auto pause = go_.since_ns > 0 ? nanoseconds(CLOCK_MONOTONIC) - go_.since_ns : 0;
        if (go_.kept > 0 && go_.since_ns > 0) {
            go_.last[go_.kept - 1].pause_ns = pause;
        }
        go_.longest_ns = std::max(go_.longest_ns, pause);
        go_.since_ns = 0;
    }

  private:
    Go go_;
};

}  // namespace zc::holder
