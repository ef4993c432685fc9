// Decides, look by look, whether the threads of a ring are SCHED_IDLE (scheduling.hpp
// says what for). No clock and no system call of its own.
//
// Idle once they got their processors at once, as on a quiet machine; not idle once one has waited,
// and then not for a while. That may be because its client computes, which does no harm, so the
// while is short where being idle had gone well, and else twice as long each time: beside a busy
// program it never goes well. Nor are they idle without requests for some seconds: who is woken
// beside a busy program must not start as SCHED_IDLE.
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

    // What the threads did since the last look.
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
