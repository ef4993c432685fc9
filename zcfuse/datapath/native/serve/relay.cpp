#include "serve/relay.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <thread>

#include "serve/statx_upcall.hpp"
#include "serve/transport_choice.hpp"

namespace zc {

namespace {

// How often requests that wait are looked through for some that wait too long.
constexpr auto kLookEvery = std::chrono::milliseconds(500);
constexpr auto kWaitForMemory = std::chrono::milliseconds(2);
constexpr std::size_t kSmallestBuffer = 256 << 10;

std::size_t largest_message(const State& state) {
    const std::size_t data = std::size_t{state.negotiation.limits().max_pages} * sys::page_bytes();
    return std::max(kSmallestBuffer, data + sys::page_bytes());
}

Asked asked(const Upcall& upcall) noexcept {
    return {upcall.nodeid, upcall.pid, upcall.uid, upcall.name};
}

}  // namespace

Relay::Relay(std::shared_ptr<State> state)
    : state_(std::move(state)),
      counts_(state_->ledger.join("relay")),
      amender_(state_->negotiation, state_->leases, state_->leased_nodes, state_->numbers,
               state_->mode != Mode::upcall),
      buffer_(largest_message(*state_), state_->config.prefault, *state_->budget) {}

void Relay::run() noexcept {
    try {
        forward_until_end();
    } catch (const std::exception& error) {
        state_->ending.failed(error.what(), 0);
    } catch (...) {
        state_->ending.failed("the relay thread ended", 0);
    }
    state_->upcalls.close();
}

void Relay::forward_until_end() {
    auto& upcalls = state_->upcalls;
    auto next_look = std::chrono::steady_clock::now() + kLookEvery;
    while (!state_->stopping.load(std::memory_order_acquire)) {
        const short wanted = upcalls.has_overflow() ? POLLIN | POLLOUT : POLLIN;
        std::array<pollfd, 2> polled{
            {{upcalls.socket(), wanted, 0}, {upcalls.wake_event(), POLLIN, 0}}};
        const int ready =
            ::poll(polled.data(), polled.size(), static_cast<int>(kLookEvery.count()));
        if (ready < 0 && errno != EINTR) {
            state_->ending.failed("waiting for control's replies", -errno);
            return;
        }
        if (ready > 0 && (polled[1].revents & POLLIN) != 0) {
            std::uint64_t drained = 0;
            sys::read(upcalls.wake_event(), &drained, sizeof drained);
        }
        if (ready > 0 && polled[0].revents != 0 && !drain()) {
            return;
        }
        if (!send_on()) {
            std::this_thread::sleep_for(kWaitForMemory);
        }
        if (const auto now = std::chrono::steady_clock::now(); now >= next_look) {
            look_through();
            next_look = now + kLookEvery;
        }
    }
}

// Returns false when there is no memory for it now.
bool Relay::send_on() {
    const Turn turn(*counts_);
    return state_->upcalls.send_overflow([this](const auto& upcall) { given_up(upcall); });
}

void Relay::look_through() {
    const Turn turn(*counts_);
    state_->upcalls.relieve([this](const auto& upcall) { given_up(upcall); });
    relieve_queues();
    state_->upcalls.expire(std::chrono::seconds(state_->config.upcall_timeout),
                           [this](const auto& upcall) { given_up(upcall); });
}

// Users' requests in the queues hold entries of rings, too, and places in the kernel.
void Relay::relieve_queues() {
    if (!state_->config.shared) {
        return;
    }
    for (const auto& job :
         state_->workers.take_beyond(most_reads(state_->config), kReadHoldsLong)) {
        counts_->because(Reason::read_refused);
        job.channel->reply_error(job.unique, -EAGAIN);
        counts_->answered_read(job.asked, job.served, job.since);
    }
    const auto relieve = [this](auto& queue, const MostHeld& most, Reason reason) {
        for (const auto& job : queue.take_beyond(most, kCallHoldsLong)) {
            counts_->because(reason);
            job.channel->reply_error(job.header.unique, -EAGAIN);
            const auto& header = job.header;
            counts_->answered({header.nodeid, header.pid, header.uid}, header.opcode, job.since);
        }
    };
    relieve(state_->listings, most_listings(state_->config), Reason::listing_refused);
    relieve(state_->calls, most_calls(state_->config), Reason::call_refused);
}

void Relay::given_up(const Upcall& upcall) noexcept {
    counts_->trace.travels(Way::upcall, 0);
    counts_->answered(asked(upcall), upcall.opcode, upcall.since);
}

// Takes all replies that are there. Returns false when control has closed its end.
bool Relay::drain() {
    for (;;) {
        const auto n = sys::recv(state_->upcalls.socket(), buffer_.data(), buffer_.size(),
                                 MSG_DONTWAIT | MSG_TRUNC);
        if (n == -EAGAIN) {
            return true;
        }
        if (n <= 0) {
            state_->upcalls.close();
            state_->ending.failed("control closed its socket", static_cast<int>(n));
            return false;
        }
        const auto size = std::min(static_cast<std::size_t>(n), buffer_.size());
        if (size < static_cast<std::size_t>(n)) {
            // Too large for our buffer: keep only an error header, which answers the request with
            // EIO.
            abi::OutHeader header{};
            std::memcpy(&header, buffer_.data(), sizeof header);
            header.len = sizeof header;
            header.error = -EIO;
            std::memcpy(buffer_.data(), &header, sizeof header);
            route({buffer_.data(), sizeof header});
            continue;
        }
        route({buffer_.data(), size});
    }
}

void Relay::route(std::span<std::byte> message) {
    const Turn turn(*counts_);
    abi::OutHeader header{};
    if (message.size() < sizeof header) {
        counts_->malformed.add();
        return;
    }
    std::memcpy(&header, message.data(), sizeof header);
    if (header.len != message.size()) {
        counts_->malformed.add();
        return;
    }
    if (header.unique == 0) {
        state_->notifier.post(message);
        return;
    }
    if ((header.unique & abi::kInterruptBit) != 0) {
        // The answer to an INTERRUPT belongs where the interrupted request came from.
        const auto channel = state_->upcalls.channel_of(header.unique & ~abi::kInterruptBit);
        if (channel != nullptr) {
            const std::array<iovec, 1> piece{{{message.data(), message.size()}}};
            channel->reply(piece);
        }
        return;
    }
    if (const auto upcall = state_->upcalls.take(header.unique)) {
        if (state_->suspects) {
            state_->suspects->done(header.unique);
        }
        forward(*upcall, header.unique, message);
        if (static_cast<abi::Opcode>(upcall->opcode) == abi::Opcode::read) {
            counts_->answered_read(asked(*upcall), served_, upcall->since);
        } else {
            counts_->trace.travels(Way::upcall, 0);
            counts_->answered(asked(*upcall), upcall->opcode, upcall->since);
        }
    } else {
        state_->upcalls.undo(message);
    }
}

void Relay::forward(const Upcall& upcall, std::uint64_t unique, std::span<std::byte> message) {
    amender_.amend(upcall, message);
    const auto opcode = static_cast<abi::Opcode>(upcall.opcode);
    if (opcode == abi::Opcode::statx &&
        answer_statx(*upcall.channel, unique, message, !state_->leased_nodes.none())) {
        return;
    }
    if (opcode == abi::Opcode::lseek &&
        state_->seeks.answer(upcall, unique, message, state_->leases)) {
        return;
    }
    const std::array<iovec, 1> piece{{{message.data(), message.size()}}};
    const auto sent = upcall.channel->reply(piece);
    if (static_cast<abi::Opcode>(upcall.opcode) == abi::Opcode::init) {
        begin_rings(*state_, sent > 0);
    }
    const bool is_read = static_cast<abi::Opcode>(upcall.opcode) == abi::Opcode::read;
    served_ = {Path::upcall, 0};
    if (is_read) {
        auto& counts = counts_->path(Path::upcall);
        const std::uint64_t payload = message.size() - sizeof(abi::OutHeader);
        counts.calls.add(2);
        counts.copied_in.add(payload);
        if (sent > 0) {
            counts.requests.add();
            counts.bytes.add(payload);
            served_.bytes = payload;
        }
        // Into a ring's entry it was copied by no system call.
        if (sent > 0 && !upcall.channel->is_ring()) {
            counts.copied_out.add(static_cast<std::uint64_t>(sent) - sizeof(abi::OutHeader));
        }
    }
    if (sent < 0 && sent != -ENOENT && sent != -ENODEV && sent != -ECONNABORTED) {
        // The kernel refused the reply, and its request would otherwise wait forever.
        upcall.channel->reply_error(unique, -EIO);
    }
}

}  // namespace zc
