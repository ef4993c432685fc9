#include "serve/scheduling_choice.hpp"

#include <algorithm>

namespace zc {

namespace {

using namespace std::chrono_literals;
using Duration = SchedulingChoice::Duration;

constexpr Duration kLookEvery = 10ms;
constexpr Duration kLookEveryWithoutRequests = 50ms;
constexpr Duration kSleepAfter = 5s;
// Average time from a thread's wake-up until it runs. It includes the client's remaining work
// before the client waits for the answer, because the client runs first.
constexpr std::uint64_t kQuietNs = 100'000;
constexpr std::uint64_t kLateNs = 500'000;
constexpr Duration kFirstBackOff = 20ms;
constexpr Duration kLongestBackOff = 30s;

}  // namespace

void SchedulingChoice::requests_came(Time now) noexcept {
    last_run_ = now;
}

Duration SchedulingChoice::look(const Look& look, Time now) noexcept {
    if (look.runs > 0 || look.stuck) {
        last_run_ = now;
    }
    if (now - last_run_ > kSleepAfter) {
        idle_ = false;
        return {};
    }
    const bool late =
        look.stuck || look.waited_ns > kLateNs * std::max<std::uint64_t>(look.runs, 1);
    const bool quiet = !late && look.runs > 0 && look.waited_ns < kQuietNs * look.runs;
    if (idle_) {
        proven_ = proven_ || quiet;
        if (late) {
            back_off(now);
        }
    } else if (quiet && now >= not_before_) {
        choose();
    }
    return now - last_run_ > 5 * kLookEvery ? kLookEveryWithoutRequests : kLookEvery;
}

void SchedulingChoice::choose() noexcept {
    idle_ = true;
    proven_ = false;
    ++chosen_;
}

void SchedulingChoice::back_off(Time now) noexcept {
    back_off_ = proven_ ? kFirstBackOff : std::clamp(back_off_ * 2, kFirstBackOff, kLongestBackOff);
    not_before_ = now + back_off_;
    idle_ = false;
    ++late_;
}

}  // namespace zc
