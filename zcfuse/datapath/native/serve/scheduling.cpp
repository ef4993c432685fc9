#include "serve/scheduling.hpp"

#include "sys/syscalls.hpp"

namespace zc {

using Clock = std::chrono::steady_clock;

Scheduling::Entry::Entry(Scheduling& of) : of_(of), tid_(sys::thread_id()) {
    const std::lock_guard guard(of_.lock_);
    sys::set_policy(tid_, of_.idle_ ? sys::Policy::idle : sys::Policy::batch);
    of_.members_.push_back({tid_, sys::run_times(tid_)});
}

Scheduling::Entry::~Entry() {
    const std::lock_guard guard(of_.lock_);
    std::erase_if(of_.members_, [this](const Member& member) { return member.tid == tid_; });
}

void Scheduling::wake() noexcept {
    const std::lock_guard guard(lock_);
    asleep_.store(false, std::memory_order_relaxed);
    choice_.requests_came(Clock::now());
    changed_.notify_all();
}

void Scheduling::stop() noexcept {
    const std::lock_guard guard(lock_);
    stopping_ = true;
    changed_.notify_all();
}

Scheduling::Statistics Scheduling::statistics() const {
    const std::lock_guard guard(lock_);
    return {idle_, choice_.chosen(), choice_.late(), reason_};
}

void Scheduling::watch() {
    auto reason = sys::why_not_idle();
    std::unique_lock guard(lock_);
    reason_ = std::move(reason);
    if (!reason_.empty()) {
        asleep_.store(false, std::memory_order_relaxed);  // the watcher never needs waking again
        return;
    }
    Clock::duration until_next{};
    while (!stopping_) {
        if (asleep_.load(std::memory_order_relaxed)) {
            changed_.wait(guard);
        } else {
            changed_.wait_for(guard, until_next);
            until_next = choice_.look(look(), Clock::now());
            asleep_.store(until_next == Clock::duration::zero(), std::memory_order_relaxed);
        }
        apply();
    }
}

SchedulingChoice::Look Scheduling::look() {
    SchedulingChoice::Look look;
    for (auto& member : members_) {
        const auto now = sys::run_times(member.tid);
        look.runs += now.runs - member.seen.runs;
        look.waited_ns += now.waited_ns - member.seen.waited_ns;
        // The kernel adds a thread's wait for its processor only once the thread runs.
        look.stuck = look.stuck || (now.runs == member.seen.runs && sys::is_runnable(member.tid));
        member.seen = now;
    }
    return look;
}

void Scheduling::apply() {
    const bool idle = choice_.idle() && !stopping_;
    if (idle == idle_) {
        return;
    }
    idle_ = idle;
    for (const auto& member : members_) {
        sys::set_policy(member.tid, idle ? sys::Policy::idle : sys::Policy::batch);
    }
}

}  // namespace zc
