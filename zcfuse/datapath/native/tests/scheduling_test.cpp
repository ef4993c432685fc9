// When serving threads should be SCHED_IDLE, and whether they are.
#include "serve/scheduling.hpp"

#include <sched.h>
#include <unistd.h>

#include <thread>

#include "check.hpp"
#include "sys/syscalls.hpp"

namespace zc::test {

namespace {

using namespace std::chrono_literals;
using Look = SchedulingChoice::Look;

constexpr Look kQuiet{100, 100 * 20'000, false};
constexpr Look kLate{100, 100 * 900'000, false};
constexpr Look kStuck{0, 0, true};
constexpr Look kNothing{};

// A choice, and a clock that advances with every look.
struct Looked {
    SchedulingChoice choice;
    SchedulingChoice::Time now{1h};

    explicit Looked() { choice.requests_came(now); }
    bool idle_after(const Look& look, SchedulingChoice::Duration after = 10ms) {
        now += after;
        choice.look(look, now);
        return choice.idle();
    }
};

}  // namespace

TEST("threads that get their processor at once are idle to the scheduler") {
    Looked looked;
    CHECK(!looked.idle_after(kNothing));
    CHECK(looked.idle_after(kQuiet));
    CHECK(looked.idle_after(kNothing));
    CHECK_EQ(looked.choice.chosen(), 1U);
    CHECK_EQ(looked.choice.late(), 0U);
}

TEST("one that waits for its processor ends that, whether it got it or not") {
    for (const auto& bad : {kLate, kStuck}) {
        Looked looked;
        CHECK(looked.idle_after(kQuiet));
        CHECK(!looked.idle_after(bad));
        CHECK_EQ(looked.choice.late(), 1U);
    }
}

TEST("the next try comes later each time") {
    Looked looked;
    for (const auto wait : {20ms, 40ms, 80ms, 160ms}) {
        CHECK(looked.idle_after(kQuiet));
        CHECK(!looked.idle_after(kStuck));
        CHECK(!looked.idle_after(kQuiet, wait - 1ms));
        looked.now += 1ms;
    }
    CHECK_EQ(looked.choice.late(), 4U);
}

TEST("where it had gone well it is soon tried again") {
    Looked looked;
    for (int i = 0; i < 5; ++i) {
        looked.idle_after(kQuiet, 4s);
        looked.idle_after(kStuck);
    }
    CHECK(looked.idle_after(kQuiet, 4s));
    CHECK(looked.idle_after(kQuiet));
    CHECK(!looked.idle_after(kStuck));
    CHECK(looked.idle_after(kQuiet, 20ms));
}

TEST("without requests they are not idle, and nobody looks") {
    Looked looked;
    CHECK(looked.idle_after(kQuiet));
    CHECK(looked.choice.look(kNothing, looked.now + 1s) > 10ms);
    CHECK(looked.choice.look(kNothing, looked.now + 6s) == 0ms);
    CHECK(!looked.choice.idle());
}

TEST("a thread that serves is scheduled as it was decided, and as usual at the end") {
    Scheduling scheduling;
    bool was_idle = false;
    {
        const Scheduling::Entry place(scheduling);
        CHECK_EQ(::sched_getscheduler(0), SCHED_BATCH);
        std::thread watcher([&] { scheduling.watch(); });
        // On a busy machine it may never be quiet enough; without CAP_SYS_NICE it must not change.
        for (int i = 0; i < 300 && !was_idle; ++i) {
            scheduling.stir();
            ::usleep(1000);
            was_idle = scheduling.statistics().idle;
        }
        CHECK(!was_idle || scheduling.statistics().reason.empty());
        scheduling.stop();
        watcher.join();
        CHECK_EQ(::sched_getscheduler(0), SCHED_BATCH);
    }
    CHECK(!scheduling.statistics().idle);
    // It may also have been idle between two looks.
    CHECK(!was_idle || scheduling.statistics().chosen > 0);
}

TEST("a thread that is gone has no run times and no policy to set") {
    pid_t gone = 0;
    std::thread([&] { gone = sys::thread_id(); }).join();
    CHECK_EQ(sys::set_policy(gone, sys::Policy::idle), -ESRCH);
    CHECK_EQ(sys::run_times(gone).runs, 0U);
    CHECK(!sys::is_runnable(gone));
    CHECK(sys::is_runnable(sys::thread_id()));
}

}  // namespace zc::test
