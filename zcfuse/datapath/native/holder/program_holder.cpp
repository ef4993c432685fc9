#include "holder/program_holder.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace zc::holder {

namespace {

constexpr std::string_view kSession = "session ";

Message refusal(std::string_view why) noexcept {
    Message message{Kind::refused, {}, {}};
    std::copy_n(why.begin(), std::min(why.size(), kTextBytes - 1), message.text.begin());
    return message;
}

}  // namespace

void SocketFile::take(sys::UniqueFd directory, const std::array<char, kTextBytes>& name) noexcept {
    struct ::stat file {};
    if (name.back() == 0 &&
        ::fstatat(directory.get(), name.data(), &file, AT_SYMLINK_NOFOLLOW) == 0) {
        directory_ = std::move(directory);
        name_ = name;
        number_ = file.st_ino;
    }
}

void SocketFile::leave() noexcept {
    struct ::stat file {};
    if (directory_ && ::fstatat(directory_.get(), name_.data(), &file, AT_SYMLINK_NOFOLLOW) == 0 &&
        file.st_ino == number_) {
        ::unlinkat(directory_.get(), name_.data(), 0);
    }
    directory_.reset();
}

ProgramHolder::ProgramHolder(sys::UniqueFd first, std::chrono::milliseconds wait)
    : wait_(wait), history_(::getpid()) {
    asking_[0] = Program::connected(std::move(first));
}

void ProgramHolder::run() {
    settle();  // the first program may have ended already
    while (!over_) {
        wait_for_events();
        settle();
    }
    socket_file_.leave();  // before the descriptors: a later mount may then have the number
}

int ProgramHolder::session() const noexcept {
    for (const auto& one : kept_.all()) {
        if (std::string_view(one.name.data()).starts_with(kSession)) {
            return one.descriptor.get();
        }
    }
    return -1;
}

void ProgramHolder::wait_for_events() {
    // The session is polled for its end only, so a request does not wake the holder.
    std::array<pollfd, 4 + kMostAsking> polled{
        {{serving_ ? serving_->socket() : -1, POLLIN, 0},
         {serving_ ? serving_->process() : -1, POLLIN, 0},
         {listener_.get() >= 0 ? listener_.get() : -1, POLLIN, 0},
         {serving_ ? -1 : session(), 0, 0}}};
    for (std::size_t at = 0; at < kMostAsking; ++at) {
        polled[4 + at] = {asking_[at] ? asking_[at]->socket() : -1, POLLIN, 0};
    }
    const int wait = serving_ ? -1 : poll_milliseconds(until_);
    if (::poll(polled.data(), polled.size(), wait) <= 0) {
        return;
    }
    if (polled[0].revents != 0) {
        take_messages_of_serving();
    }
    for (std::size_t at = 0; at < kMostAsking; ++at) {
        if (polled[4 + at].revents != 0) {
            take_messages(asking_[at]);
        }
    }
    if (polled[2].revents != 0) {
        take_connections();
    }
    if (polled[3].revents != 0) {
        finish();  // somebody unmounted
    }
}

void ProgramHolder::take_connections() {
    sys::UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket) {
        return;
    }
    const Link link{sys::UniqueFd(::fcntl(socket.get(), F_DUPFD_CLOEXEC, 0))};
    const auto place = std::find(asking_.begin(), asking_.end(), std::nullopt);
    if (place == asking_.end()) {
        link.send(refusal("busy"));
        return;
    }
    *place = Program::connected(std::move(socket));
    if (!*place) {
        link.send(refusal("user"));
    }
}

void ProgramHolder::take_messages(std::optional<Program>& asking) {
    take_messages_of(asking, [&](const Message& message, const sys::UniqueFd&) {
        switch (message.kind) {
            case Kind::query: {
                Message reply{Kind::state, {}, {}};
                const auto now = state();
                std::memcpy(reply.text.data(), &now, sizeof now);
                asking->send(reply);
                break;
            }
            case Kind::ending:
                if (!serving_) {
                    finish();
                }
                break;
            case Kind::warm:
                promote(asking, message.text);
                break;
            default:
                break;
        }
    });
    if (asking && asking->socket() < 0) {
        asking.reset();
    }
}

void ProgramHolder::promote(std::optional<Program>& asking,
                            const std::array<char, kTextBytes>& layout) {
    const bool first = history_.go().generation == 0;
    if (serving_ || (!first && layout != layout_)) {
        asking->send(refusal(serving_ ? "serves" : "layout"));
        return;
    }
    serving_ = std::move(asking);
    asking.reset();
    layout_ = layout;
    answers_ = planned_ = false;
    history_.begin_generation();
    for (const auto& one : kept_.all()) {
        if (!serving_->send_whenever(Message{Kind::descriptor, {}, one.name},
                                     one.descriptor.get())) {
            return;  // it ended
        }
    }
    serving_->send(history_.go());
}

void ProgramHolder::take_messages_of_serving() {
    take_messages_of(serving_, [this](const Message& message, sys::UniqueFd with) {
        obey(message, std::move(with));
    });
}

void ProgramHolder::obey(const Message& message, sys::UniqueFd with) {
    if (!kept_.obey(message, with)) {
        finish();
    }
    switch (message.kind) {
        case Kind::listen:
            listener_ = std::move(with);
            break;
        case Kind::place:
            socket_file_.take(std::move(with), message.text);
            break;
        case Kind::serving:
            history_.answered();
            answered_ = answers_ = true;
            until_ = Clock::time_point::max();
            break;
        case Kind::handing_over:
            planned_ = true;
            break;
        case Kind::ending:
            ending_ = true;
            socket_file_.leave();
            break;
        default:
            break;
    }
}

void ProgramHolder::settle() {
    if (serving_ && serving_->ended()) {
        take_messages_of_serving();  // sent before its end
        serving_.reset();
        if (ending_ || !answered_) {
            finish();
        } else if (answers_) {
            // One that took over and never answered changes nothing: the time runs on.
            history_.ended(0, kUnknownStatus, planned_);
            until_ = Clock::now() + wait_;
        }
        answers_ = planned_ = false;
    }
    const bool alone =
        std::all_of(asking_.begin(), asking_.end(), [](const auto& one) { return !one; });
    if (!serving_ && ((!answered_ && alone) || Clock::now() >= until_)) {
        finish();
    }
}

StateNow ProgramHolder::state() const noexcept {
    const auto& go = history_.go();
    StateNow now{go.generation, serving_ ? 1U : 0U, go.since_ns, 0, go.holder};
    if (!serving_ && until_ != Clock::time_point::max()) {
        now.until_ns =
            static_cast<std::uint64_t>(std::chrono::nanoseconds(until_.time_since_epoch()).count());
    }
    return now;
}

}  // namespace zc::holder
