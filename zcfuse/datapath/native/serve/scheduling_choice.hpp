// Decides, look by look, whether the threads of a ring are SCHED_IDLE (scheduling.hpp
// says why). It reads no clock and makes no system call.
//
// The threads become idle once they got their processors at once, as on a quiet machine. They stop
// being idle for a while once one has waited. It may have waited because its client computes, which
// does no harm, so the while is short if being idle had gone well. Otherwise the while doubles each
// time: beside a busy program, being idle never goes well. The threads also stop being idle after
// some seconds without requests: a thread woken beside a busy program must not start as SCHED_IDLE.
//
// Threads: its owner's alone.
#pragma once

#include <chrono>
#include <cstdint>

namespace zc {

class SchedulingChoice {
  public:
    using Time = std::chrono::steady_clock::time_point;
    using Duration = std::chrono::steady_clock::duration;

    // The activity of the threads since the last look.
    struct Look {
        std::uint64_t runs = 0;       // times that one got a processor
        std::uint64_t waited_ns = 0;  // that they had waited for it, in all
        bool stuck = false;           // one has waited all the time, and waits still
    };

    void requests_came(Time now) noexcept;
    // Returns how long it may be until the next look; zero: until requests come.
    Duration look(const Look& look, Time now) noexcept;

    bool idle() const noexcept { return idle_; }
    std::uint64_t chosen() const noexcept { return chosen_; }
    std::uint64_t late() const noexcept { return late_; }

  private:
    void choose() noexcept;
    void back_off(Time now) noexcept;

    bool idle_ = false;
    bool proven_ = false;  // it has gone well since it was chosen
    std::uint64_t chosen_ = 0;
    std::uint64_t late_ = 0;
    Time last_run_{};
    Time not_before_{};
    Duration back_off_{};
};

}  // namespace zc
