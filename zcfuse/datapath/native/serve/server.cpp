#include "serve/server.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <exception>
#include <optional>
#include <vector>

#include "serve/ops/open_lease.hpp"
#include "sys/threads.hpp"

namespace zc {

namespace {

// More than any request of a read-only mount (names and small structures; a SETXATTR has 64 KiB),
// and more than the header and max_write that the kernel wants room for.
constexpr std::size_t kRequestBytes = 128 << 10;

template <typename Structure>
bool parse(std::span<const std::byte> bytes, Structure& into) noexcept {
    if (bytes.size() < sizeof into) {
        return false;
    }
    std::memcpy(&into, bytes.data(), sizeof into);
    return true;
}

Asked asked(const abi::InHeader& header, std::span<const std::byte> body = {}) noexcept {
    return {header.nodeid, header.pid, header.uid, abi::entry_name(header, body)};
}

}  // namespace

ReadPolicy policy_of(const State& state) {
    return {state.mode, state.config.splice_min,
            std::size_t{state.negotiation.limits().max_pages} * sys::page_bytes(),
            state.config.prefault};
}

Server::Server(std::shared_ptr<State> state, std::shared_ptr<const Channel> channel)
    : state_(std::move(state)),
      channel_(std::move(channel)),
      counts_(state_->ledger.join(channel_->is_ring() ? "ring" : "serve")),
      context_{*state_, *counts_, {}},
      ring_reader_(policy_of(*state_), counts_),
      buffer_(state_->config.read_only ? kRequestBytes : kMessageBytes) {
    if (channel_->is_ring()) {
        return;
    }
    reader_.emplace(policy_of(*state_), state_->windows, state_->budget, counts_);
    state_->pool_bytes += reader_->buffer().size();
    state_->pool_locked += reader_->buffer().locked() ? reader_->buffer().size() : 0;
    state_->pipe_slots = reader_->pipe_slots();
}

void Server::run() noexcept {
    try {
        std::optional<Scheduling::Place> place;
        if (channel_->is_ring()) {
            place.emplace(state_->scheduling);
        } else {
            sys::set_policy(sys::thread_id(), sys::Policy::batch);
        }
        receive_until_end();
    } catch (const std::exception& error) {
        state_->ending.failed(error.what(), 0);
    } catch (...) {
        state_->ending.failed("a serving thread ended", 0);
    }
}

void Server::receive_until_end() {
    while (!state_->stopping.load(std::memory_order_acquire)) {
        const auto n = channel_->receive(buffer_);
        if (n > 0) {
            dispatch({buffer_.data(), static_cast<std::size_t>(n)});
        } else if (!still_going(n)) {
            return;
        }
    }
}

bool Server::still_going(ssize_t error) noexcept {
    switch (-error) {
        case EINTR:   // a signal: look whether to stop
        case ENOENT:  // the request was withdrawn before it was read
            return true;
        case ECANCELED:  // a ring that is not in use, or whose connection another sees end
            return false;
        case EAGAIN:
            channel_->wait();
            return true;
        case 0:  // the peer of a socket pair is gone
        case ENODEV:
            state_->ending.ended("unmounted");
            return false;
        case ECONNABORTED:
            state_->ending.ended("aborted");
            return false;
        default:
            state_->ending.failed(
                channel_->is_ring() ? "io_uring: a ring's queue" : "reading a request",
                static_cast<int>(error));
            return false;
    }
}

void Server::dispatch(std::span<const std::byte> message) {
    const Turn turn(*counts_);
    received_ = Clock::now();
    state_->scheduling.stir();
    abi::InHeader header{};
    if (!parse(message, header) || header.len != message.size()) {
        counts_->malformed.add();
        return;
    }
    counts_->requests[ThreadCounts::slot(header.opcode)].add();
    if ((header.unique & abi::kResendBit) != 0) {
        state_->surviving->session().count_resent(header.opcode);
    }
    handed_up_ = false;
    if (state_->suspects && !state_->suspects->begin(header.unique, header.opcode, header.nodeid)) {
        counts_->because(Reason::killed_daemons);
        channel_->reply_error(header.unique, -EIO);
        state_->suspects->done(header.unique);
        counts_->answered(asked(header), header.opcode, received_);
        return;
    }
    auto fate = serve(header, message.subspan(sizeof header));
    if (fate == Fate::up) {
        fate = hand_up(header, message);
    }
    if (fate == Fate::finished) {
        counts_->answered(asked(header, message.subspan(sizeof header)), header.opcode, received_);
    }
    if (state_->suspects && !handed_up_) {
        state_->suspects->done(header.unique);
    }
}

Server::Fate Server::serve(const abi::InHeader& header, std::span<const std::byte> body) {
    if (state_->mirrors.files().any_inherited() && !reopened(header)) {
        return Fate::finished;
    }
    switch (static_cast<abi::Opcode>(header.opcode)) {
        case abi::Opcode::read:
            return serve_read(header, body);
        case abi::Opcode::lseek:
            return serve_lseek(header, body);
        case abi::Opcode::interrupt:
            return serve_interrupt(body);
        case abi::Opcode::init:
            return serve_init(header, body);
        case abi::Opcode::open:
            counts_->files.opened(header.nodeid);
            break;
        default:
            break;
    }
    context_.elsewhere = false;
    context_.received = received_;
    if (ops::serve(context_, {channel_, header, body})) {
        return context_.elsewhere ? Fate::elsewhere : Fate::finished;
    }
    if (static_cast<abi::Opcode>(header.opcode) == abi::Opcode::statx && !state_->mirrors.none()) {
        return hand_up_statx(header, body);
    }
    return Fate::up;
}

// Whether the request can be served as far as its file is concerned: one that an earlier process
// had open is opened again for the first request that needs it.
bool Server::reopened(const abi::InHeader& header) {
    switch (static_cast<abi::Opcode>(header.opcode)) {
        case abi::Opcode::read:
        case abi::Opcode::write:
        case abi::Opcode::lseek:
        case abi::Opcode::fsync:
        case abi::Opcode::fallocate:
        case abi::Opcode::setattr:
        case abi::Opcode::copy_file_range:
            break;
        default:
            return true;
    }
    const int error = ops::reopen_inherited(context_, header.nodeid);
    if (error != 0) {
        channel_->reply_error(header.unique, error);
    }
    return error == 0;
}

// The INIT that an earlier process did not answer in time gets what that process recorded.
Server::Fate Server::serve_init(const abi::InHeader& header, std::span<const std::byte> body) {
    if (auto agreed = state_->negotiation.agreed()) {
        abi::OutHeader reply{sizeof reply + sizeof *agreed, 0, header.unique};
        const std::array<iovec, 2> pieces{{{&reply, sizeof reply}, {&*agreed, sizeof *agreed}}};
        channel_->reply(pieces);
        return Fate::finished;
    }
    if (body.size() >= sizeof(abi::InitIn)) {
        std::vector<std::byte> request(sizeof header + body.size());
        std::memcpy(request.data(), &header, sizeof header);
        std::memcpy(request.data() + sizeof header, body.data(), body.size());
        state_->negotiation.offered(request);
    }
    return Fate::up;
}

// Answers a request that waits in a queue: its client, ended by a signal, would otherwise stay
// until its turn comes.
bool Server::withdraw(std::uint64_t unique) {
    auto read = state_->reads.withdraw(unique);
    if (!read) {
        read = state_->workers.withdraw(unique);
    }
    const auto listing = read ? std::nullopt : state_->listings.withdraw(unique);
    if (!read && !listing) {
        return false;
    }
    if (read) {
        read->channel->reply_error(unique, -EINTR);
        counts_->answered_read(read->asked, read->served, read->since);
    } else {
        const auto& header = listing->header;
        listing->channel->reply_error(unique, -EINTR);
        counts_->answered({header.nodeid, header.pid, header.uid}, header.opcode, listing->since);
    }
    return true;
}

Server::Fate Server::serve_interrupt(std::span<const std::byte> body) {
    ++state_->interrupts;
    abi::InterruptIn interrupt{};
    if (parse(body, interrupt)) {
        if (const auto waited = state_->upcalls.withdraw(interrupt.unique)) {
            if (state_->suspects) {
                state_->suspects->done(interrupt.unique);
            }
            counts_->answered({waited->nodeid, waited->pid, waited->uid}, waited->opcode,
                              waited->since);
            return Fate::finished;
        }
    }
    if (parse(body, interrupt) && withdraw(interrupt.unique)) {
        return Fate::finished;
    }
    // libfuse would keep an INTERRUPT forever if it never saw the request.
    const bool known =
        parse(body, interrupt) && state_->upcalls.channel_of(interrupt.unique) != nullptr;
    return known ? Fate::up : Fate::finished;
}

Server::Fate Server::serve_read(const abi::InHeader& header, std::span<const std::byte> body) {
    abi::ReadIn request{};
    if (!parse(body, request)) {
        counts_->malformed.add();
        channel_->reply_error(header.unique, -EINVAL);
        return Fate::finished;
    }
    auto lease = state_->leases.find(header.nodeid);
    if (!lease) {
        const int error = ops::implicit_lease(context_, header.nodeid, &request, lease);
        if (error < 0) {
            channel_->reply_error(header.unique, error);
            return Fate::finished;
        }
    } else if (request.fh == 0 && state_->config.immutable) {
        state_->mirrors.files().used(header.nodeid, sys::coarse_milliseconds());
    }
    if (!lease) {
        if (state_->mode != Mode::upcall) {
            counts_->because(Reason::no_lease);
        }
        return Fate::up;
    }
    ReadJob read{channel_, header.unique, request, lease, asked(header), header.uid, received_};
    return reader_ ? read_by_channel(std::move(read)) : read_by_ring(std::move(read));
}

Server::Fate Server::read_by_ring(ReadJob read) {
    if (ring_reader_.serve(read, RingReader::Wait::never)) {
        counts_->answered_read(read.asked, read.served, read.since);
    } else if (read.uid != 0 && state_->config.shared &&
               state_->workers.holds_too_long(*channel_, read.uid, most_held(state_->config),
                                              kReadHoldsLong)) {
        counts_->because(Reason::read_refused);
        channel_->reply_error(read.unique, -EAGAIN);
        counts_->answered_read(read.asked, read.served, read.since);
    } else {
        state_->workers.push(std::move(read));
    }
    return Fate::elsewhere;
}

Server::Fate Server::read_by_channel(ReadJob read) {
    auto job = state_->reads.begin(std::move(read));
    while (job) {
        const auto served = reader_->serve(*job->channel, job->unique, job->request, *job->lease);
        counts_->answered_read(job->asked, served, job->since);
        job = state_->reads.next();
    }
    return Fate::elsewhere;
}

Server::Fate Server::serve_lseek(const abi::InHeader& header, std::span<const std::byte> body) {
    abi::LseekIn request{};
    if (!parse(body, request)) {
        return Fate::up;
    }
    auto lease = state_->leases.find(header.nodeid);
    if (!lease) {
        const int error = ops::implicit_lease(context_, header.nodeid, nullptr, lease);
        if (error < 0) {
            channel_->reply_error(header.unique, error);
            return Fate::finished;
        }
    }
    if (lease && lease->whole_file() != nullptr) {
        answer_seek(*channel_, header.unique, sought(*lease, request));
        return Fate::finished;
    }
    if (lease || !state_->config.immutable || request.fh != 0) {
        return Fate::up;
    }
    MadeRequest made;
    return hand_up(header, state_->seeks.upcall(header, request, made), header.opcode);
}

Server::Fate Server::hand_up_statx(const abi::InHeader& header, std::span<const std::byte> body) {
    MadeRequest made;
    const auto message = statx_upcall(header, body, made);
    if (message.empty()) {
        counts_->malformed.add();
        channel_->reply_error(header.unique, -EINVAL);
        return Fate::finished;
    }
    return hand_up(header, message, header.opcode);
}

// `asked_as`, unless 0: the opcode that the kernel asked by, of a request made from another.
Server::Fate Server::hand_up(const abi::InHeader& header, std::span<const std::byte> message,
                             std::uint32_t asked_as) {
    const auto opcode = asked_as != 0 ? asked_as : header.opcode;
    counts_->upcalls[ThreadCounts::slot(opcode)].add();
    handed_up_ = true;  // before the relay may see its reply
    const bool out =
        state_->upcalls.hand_up(channel_, ops::with_handle(context_, message), received_, asked_as);
    handed_up_ = out;
    return out ? Fate::elsewhere : Fate::finished;
}

}  // namespace zc
