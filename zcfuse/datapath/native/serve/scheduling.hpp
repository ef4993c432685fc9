// Whether the threads of a ring's queues may count as idle to the scheduler.
//
// A reply wakes the client that waits for it. The scheduler leaves a client on its processor if
// only SCHED_IDLE threads run there. Otherwise it moves the client to an idle processor, which must
// wake from sleep: a byte through two pipes and back took 48 us instead of 5 on Linux 6.18 (KVM,
// two processors). So the queues' threads are SCHED_IDLE while clients have the machine to
// themselves. Beside a busy program a SCHED_IDLE thread hardly runs. Therefore a watcher of
// ordinary priority checks every few milliseconds how long each thread waited for its processor,
// and SchedulingChoice picks their policy. The watcher sleeps while no requests come.
//
// Only a thread with CAP_SYS_NICE, or a RLIMIT_NICE of 20, may leave SCHED_IDLE (sched(7)): without
// it they stay SCHED_BATCH, and reason() says so.
//
// Serving threads call join() and stir(), the watcher calls watch(), any thread the rest. `lock_`
// is innermost.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "serve/scheduling_choice.hpp"
#include "sys/threads.hpp"

namespace zc {

class Scheduling {
  public:
    struct Statistics {
        bool idle = false;         // they are SCHED_IDLE now
        std::uint64_t chosen = 0;  // times that they became so
        std::uint64_t late = 0;    // times that one had waited too long
        std::string reason;        // why they never are; "" where they may be
    };

    // A serving thread's place; left in that thread, before it ends.
    class Entry {
      public:
        explicit Entry(Scheduling& of);
        Entry(const Entry&) = delete;
        Entry& operator=(const Entry&) = delete;
        ~Entry();

      private:
        Scheduling& of_;
        const pid_t tid_;
    };

    // A request came.
    void stir() noexcept {
        if (asleep_.load(std::memory_order_relaxed)) {
            wake();
        }
    }

    // Returns once stop() was called, or at once where SCHED_IDLE could not be left again.
    void watch();
    void stop() noexcept;
    Statistics statistics() const;

  private:
    struct Member {
        pid_t tid;
        sys::RunTimes seen;
    };

    void wake() noexcept;
    SchedulingChoice::Look look();
    void apply();

    mutable std::mutex lock_;
    std::condition_variable changed_;
    std::atomic<bool> asleep_{true};
    bool stopping_ = false;
    bool idle_ = false;  // what the members are
    std::vector<Member> members_;
    SchedulingChoice choice_;
    std::string reason_;
};

}  // namespace zc
