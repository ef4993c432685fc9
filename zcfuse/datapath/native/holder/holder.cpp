#include "holder/holder.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace zc::holder {

namespace {

using namespace std::chrono_literals;

// Loading Python and the sources of a tree takes a second on a slow machine, an archive's index
// more.
constexpr auto kWarmWithin = 600s;
constexpr auto kAnswerWithin = 60s;
// 20 ms, doubled for each start in a row that failed: 8 of them take 5 s.
constexpr auto kFirstPause = 20ms;
constexpr auto kLongestPause = 10s;
constexpr unsigned kMostFailures = 8;

sys::UniqueFd ending_signals() {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
        ::sigaddset(&set, number);
    }
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    const sys::UniqueFd low(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    sys::UniqueFd high(::fcntl(low.get(), F_DUPFD_CLOEXEC, kFirstOwn));
    if (!high) {
        throw std::system_error(errno, std::generic_category(), "signalfd");
    }
    return high;
}

bool readable(const pollfd& one) noexcept {
    return (one.revents & (POLLIN | POLLHUP | POLLERR)) != 0;
}

}  // namespace

Holder::Holder(Settings settings)
    : settings_(std::move(settings)),
      signals_(ending_signals()),
      null_(::open("/dev/null", O_RDWR | O_CLOEXEC)),
      history_(::getpid()) {
    standby_.emplace(Command{settings_.first, settings_.plan.get(), settings_.report.get(), false});
    standby_until_ = Clock::now() + kWarmWithin;
}

int Holder::run() {
    while (!status_) {
        wait_for_events();
        settle_serving();
        settle_standby();
        settle_time();
    }
    return *status_;
}

Holder::Clock::time_point Holder::deadline() const noexcept {
    auto first = std::min(until_, standby_until_);
    const bool starts = (!standby_ && answers_) || !serving_;
    if (starts && (!standby_ || warm_)) {
        first = std::min(first, not_before_);
    }
    return first;
}

void Holder::wait_for_events() {
    std::array<pollfd, 5> polled{{{signals_.get(), POLLIN, 0},
                                  {serving_ ? serving_->socket() : -1, POLLIN, 0},
                                  {serving_ ? serving_->process() : -1, POLLIN, 0},
                                  {standby_ ? standby_->socket() : -1, POLLIN, 0},
                                  {standby_ ? standby_->process() : -1, POLLIN, 0}}};
    if (::poll(polled.data(), polled.size(), poll_milliseconds(deadline())) <= 0) {
        return;
    }
    if (readable(polled[0])) {
        take_signals();
    }
    if (readable(polled[1])) {
        take_messages_of_serving();
    }
    if (readable(polled[3])) {
        take_messages_of_standby();
    }
}

void Holder::take_signals() {
    signalfd_siginfo info{};
    while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
        stopping_ = true;
        if (serving_ && (answers_ || kept_.empty())) {
            serving_->signal(SIGTERM);
        } else if (!serving_ && kept_.empty()) {
            finish(1);
        }
        // Otherwise a successor is about to serve, and gets the signal then: it can unmount.
    }
}

void Holder::take_messages_of_serving() {
    take_messages_of(serving_, [this](const Message& message, sys::UniqueFd with) {
        obey(message, std::move(with));
    });
}

void Holder::obey(const Message& message, sys::UniqueFd with) {
    if (!kept_.obey(message, with)) {
        serving_->signal(SIGTERM);
    }
    switch (message.kind) {
        case Kind::serving:
            begin_service();
            break;
        case Kind::ending:
            over_ = true;
            break;
        case Kind::handing_over:
            planned_ = true;
            break;
        case Kind::renew:
            renewing_ = true;
            standby_.reset();
            start_standby();
            break;
        default:
            break;
    }
}

void Holder::take_messages_of_standby() {
    take_messages_of(standby_, [this](const Message& message, const sys::UniqueFd&) {
        if (message.kind != Kind::warm) {
            return;
        }
        warm_ = true;
        standby_until_ = Clock::time_point::max();
        if (renewing_ && serving_) {
            renewing_ = false;
            serving_->send(Message{Kind::renewed, {}, message.text});
        }
    });
}

// The serving child answers clients.
void Holder::begin_service() noexcept {
    history_.answered();
    answers_ = true;
    until_ = Clock::time_point::max();
    failures_ = 0;
    if (history_.go().generation == 1 && settings_.background) {
        // As the child does now, not earlier: autofs lets only its caller's group pass.
        ::setsid();
        if (settings_.drops_error_output) {
            ::dup2(null_.get(), STDERR_FILENO);
        }
    }
    settings_.report.reset();
    if (stopping_) {
        serving_->signal(SIGTERM);
    }
}

void Holder::settle_serving() {
    if (!serving_) {
        return;
    }
    const auto ended = serving_->reap();
    if (!ended) {
        return;
    }
    take_messages_of_serving();  // those that it sent before its end
    serving_.reset();
    if (over_ || kept_.empty()) {
        finish(ended->signal == 0 ? ended->status : 1);
        return;
    }
    history_.ended(ended->signal, ended->status, planned_);
    if (!answers_) {
        note_failure();
    }
    answers_ = planned_ = renewing_ = false;
    until_ = Clock::time_point::max();
}

void Holder::settle_standby() {
    if (!standby_) {
        return;
    }
    const auto ended = standby_->reap();
    if (!ended) {
        return;
    }
    standby_.reset();
    warm_ = false;
    standby_until_ = Clock::time_point::max();
    if (renewing_ && serving_) {
        renewing_ = false;
        serving_->send(Message{Kind::renewed, {}, {}});
    }
    if (kept_.empty() && !serving_) {
        finish(ended->signal == 0 ? ended->status : 1);
        return;
    }
    note_failure();
}

// Without a successor the holder ends. With its descriptors the connection ends, so that clients
// get an error instead of waiting.
void Holder::note_failure() noexcept {
    ++failures_;
    const auto pause = kFirstPause * (1U << std::min(failures_ - 1, 9U));
    not_before_ = Clock::now() + std::min<Clock::duration>(pause, kLongestPause);
    if (!answers_ && failures_ > kMostFailures) {
        finish(1);
    }
}

void Holder::settle_time() {
    if (status_) {
        return;
    }
    const auto now = Clock::now();
    if (serving_ && now >= until_) {
        until_ = Clock::time_point::max();
        serving_->signal(SIGKILL);
    }
    if (standby_ && now >= standby_until_) {
        standby_until_ = Clock::time_point::max();
        standby_->signal(SIGKILL);
    }
    if (now < not_before_) {
        return;
    }
    if (!serving_ && standby_ && warm_) {
        promote();
    } else if (!standby_ && (answers_ || !serving_)) {
        start_standby();
    }
}

void Holder::start_standby() {
    warm_ = false;
    try {
        // The terminal's signals are for the holder, which passes them on.
        standby_.emplace(Command{settings_.successors, settings_.plan.get(), -1, true});
        standby_until_ = Clock::now() + kWarmWithin;
    } catch (const std::system_error&) {
        note_failure();
    }
}

void Holder::promote() {
    serving_ = std::move(standby_);
    standby_.reset();
    warm_ = answers_ = over_ = planned_ = false;
    history_.begin_generation();
    until_ = Clock::now() + kAnswerWithin;
    for (const auto& one : kept_.all()) {
        if (!serving_->send_whenever(Message{Kind::descriptor, {}, one.name},
                                     one.descriptor.get())) {
            return;  // it is dead and reaped next, or does not read and ends with its time
        }
    }
    serving_->send(history_.go());
}

}  // namespace zc::holder
