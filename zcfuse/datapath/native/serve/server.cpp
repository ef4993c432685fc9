#include "serve/server.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <exception>
#include <optional>
#include <vector>

#include "abi/fuse_changes.hpp"
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

void count_buffers(State& state, const Reader& reader) {
    const auto size = reader.buffer().size();
    ++state.pool_buffers;
    state.pool_bytes += size;
    state.pool_locked += reader.buffer().locked() ? size : 0;
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
    count_buffers(*state_, *reader_);
    state_->pipe_slots = reader_->pipe_slots();
}

Server::Server(std::shared_ptr<State> state)
    : state_(std::move(state)),
      counts_(state_->ledger.join("call")),
      context_{*state_, *counts_, {}},
      calls_(true),
      ring_reader_(policy_of(*state_), counts_) {
    context_.lists = ops::Context::Lists::none;
}

void Server::run() noexcept {
    try {
        std::optional<Scheduling::Entry> place;
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
    forwarded_ = false;
    if (state_->suspects && !state_->suspects->begin(header.unique, header.opcode, header.nodeid)) {
        counts_->because(Reason::killed_daemons);
        channel_->reply_error(header.unique, -EIO);
        state_->suspects->done(header.unique);
        counts_->answered(asked(header), header.opcode, received_);
        return;
    }
    answer(header, message);
}

void Server::take(const CallJob& job) {
    const Turn turn(*counts_);
    const auto began = Clock::now();
    channel_ = job.channel;
    received_ = job.since;
    forwarded_ = false;
    answer(job.header, job.message);
    state_->slowness.note(Clock::now() - began);
}

void Server::answer(const abi::InHeader& header, std::span<const std::byte> message) {
    auto fate = serve(header, message.subspan(sizeof header));
    if (fate == Fate::up) {
        fate = forward(header, message);
    }
    if (fate == Fate::finished) {
        const auto taken = counts_->answered(asked(header, message.subspan(sizeof header)),
                                             header.opcode, received_);
        if (!calls_) {
            state_->slowness.note(taken);
        }
    }
    if (state_->suspects && !forwarded_) {
        state_->suspects->done(header.unique);
    }
}

bool Server::may_take_long(const abi::InHeader& header, Patience patience) const {
    if (patience == Patience::none || state_->leased_nodes.none()) {
        return false;
    }
    const bool writable = !state_->config.read_only;
    return (writable && patience == Patience::long_) ||
           (writable && patience == Patience::changes && channel_->is_ring()) ||
           state_->slowness.is_slow() || state_->leased_nodes.is_far(header.nodeid);
}

// Whether a disk may hold up a request to a filesystem that was fast so far.
bool Server::may_ask_disk(const abi::InHeader& header, std::span<const std::byte> body,
                          Patience patience) const {
    if (state_->leased_nodes.needs_no_disk()) {
        return false;
    }
    switch (patience) {
        case Patience::names: {
            const bool by_name = static_cast<abi::Opcode>(header.opcode) == abi::Opcode::lookup;
            const ops::Request request{channel_, header, body};
            return !state_->leased_nodes.is_remembered(header.nodeid,
                                                       by_name ? request.name() : nullptr);
        }
        case Patience::looks:
            return true;
        case Patience::changes:
            return !state_->config.read_only;
        default:
            return false;
    }
}

Server::Fate Server::call_elsewhere(const abi::InHeader& header, std::span<const std::byte> body) {
    auto& calls = state_->calls;
    const bool is_write = static_cast<abi::Opcode>(header.opcode) == abi::Opcode::write;
    if (header.uid != 0 &&
        (calls.holds_too_long(*channel_, header.uid, most_calls(state_->config), kCallHoldsLong) ||
         (is_write && calls.bytes_of(header.uid) >= kMostWaitingBytes))) {
        counts_->because(Reason::call_refused);
        channel_->reply_error(header.unique, -EAGAIN);
        return Fate::finished;
    }
    counts_->because(Reason::call_elsewhere);
    calls.push(call_job(channel_, header, body, received_));
    heed_early_interrupt(header.unique);
    return Fate::elsewhere;
}

Server::Fate Server::serve(const abi::InHeader& header, std::span<const std::byte> body) {
    if (calls_ || !state_->config.shared) {
        return serve_here(header, body);
    }
    const auto patience = patience_for(header, body);
    if (may_take_long(header, patience)) {
        return call_elsewhere(header, body);
    }
    if (!may_ask_disk(header, body, patience)) {
        return serve_here(header, body);
    }
    if (channel_->is_ring()) {
        return call_elsewhere(header, body);
    }
    const ReadSlots::Held slot(state_->read_slots);
    return slot ? serve_here(header, body) : call_elsewhere(header, body);
}

Server::Fate Server::serve_here(const abi::InHeader& header, std::span<const std::byte> body) {
    if (state_->leased_nodes.files().any_inherited() && !reopened(header, body)) {
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
        if (context_.elsewhere) {
            heed_early_interrupt(header.unique);
        }
        return context_.elsewhere ? Fate::elsewhere : Fate::finished;
    }
    if (static_cast<abi::Opcode>(header.opcode) == abi::Opcode::statx &&
        !state_->leased_nodes.none()) {
        return forward_statx(header, body);
    }
    return Fate::up;
}

// Whether the request can be served as far as its file is concerned: one that an earlier process
// had open is opened again for the first request that needs it.
bool Server::reopened(const abi::InHeader& header, std::span<const std::byte> body) {
    auto other = header.nodeid;
    abi::CopyFileRangeIn copy{};
    switch (static_cast<abi::Opcode>(header.opcode)) {
        case abi::Opcode::read:
        case abi::Opcode::write:
        case abi::Opcode::lseek:
        case abi::Opcode::fsync:
        case abi::Opcode::fallocate:
        case abi::Opcode::setattr:
            break;
        case abi::Opcode::open:
            // A further open joins those of the earlier process, and their writer.
            if (state_->config.read_only) {
                return true;
            }
            break;
        case abi::Opcode::copy_file_range:
        case abi::Opcode::copy_file_range_64:
            other = parse(body, copy) ? copy.nodeid_out : other;
            break;
        default:
            return true;
    }
    int error = ops::reopen_inherited(context_, header.nodeid);
    if (error == 0 && other != header.nodeid) {
        error = ops::reopen_inherited(context_, other);
    }
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
        state_->negotiation.offered(request, ops::tree_allows_silent_opens(*state_));
    }
    return Fate::up;
}

// Answers a request that waits in a queue: its client, ended by a signal, would otherwise stay
// until its turn comes.
bool Server::withdraw(std::uint64_t unique) {
    if (const auto waited = state_->upcalls.withdraw(unique)) {
        if (state_->suspects) {
            state_->suspects->done(unique);
        }
        counts_->answered({waited->nodeid, waited->pid, waited->uid}, waited->opcode,
                          waited->since);
        return true;
    }
    const auto read = state_->workers.withdraw(unique);
    auto call = read ? std::nullopt : state_->listings.withdraw(unique);
    if (!read && !call) {
        call = state_->calls.withdraw(unique);
    }
    if (!read && !call) {
        return false;
    }
    if (read) {
        read->channel->reply_error(unique, -EINTR);
        counts_->answered_read(read->asked, read->served, read->since);
    } else {
        const auto& header = call->header;
        call->channel->reply_error(unique, -EINTR);
        counts_->answered({header.nodeid, header.pid, header.uid}, header.opcode, call->since);
    }
    return true;
}

Server::Fate Server::serve_interrupt(std::span<const std::byte> body) {
    ++state_->interrupts;
    abi::InterruptIn interrupt{};
    if (!parse(body, interrupt)) {
        return Fate::finished;
    }
    if (withdraw(interrupt.unique)) {
        return Fate::finished;
    }
    // libfuse would keep an INTERRUPT forever if it never saw the request.
    if (state_->upcalls.channel_of(interrupt.unique) != nullptr) {
        return Fate::up;
    }
    state_->early_interrupts.put(interrupt.unique);
    withdraw(interrupt.unique);
    return Fate::finished;
}

// A request has just been put into a queue.
void Server::heed_early_interrupt(std::uint64_t unique) {
    if (state_->early_interrupts.take(unique)) {
        withdraw(unique);
    }
}

Server::Fate Server::serve_read(const abi::InHeader& header, std::span<const std::byte> body) {
    abi::ReadIn request{};
    if (!parse(body, request)) {
        counts_->malformed.add();
        channel_->reply_error(header.unique, -EINVAL);
        return Fate::finished;
    }
    auto lease = state_->leases.find(header.nodeid);
    if (!lease && !calls_ && state_->config.shared && may_take_long(header, Patience::looks)) {
        return call_elsewhere(header, body);
    }
    if (!lease) {
        const int error = ops::implicit_lease(context_, header.nodeid, &request, lease);
        if (error < 0) {
            channel_->reply_error(header.unique, error);
            return Fate::finished;
        }
    } else if (request.fh == 0 && state_->negotiation.silent_opens()) {
        state_->leased_nodes.files().used(header.nodeid, sys::coarse_milliseconds());
    }
    if (!lease) {
        if (state_->mode != Mode::upcall) {
            counts_->because(Reason::no_lease);
        }
        return Fate::up;
    }
    if (!lease->has(request.offset, request.size)) {
        counts_->because(Reason::read_not_present);
        return Fate::up;
    }
    ReadJob read{channel_, header.unique, request, lease, asked(header), header.uid, received_};
    if (read_at_once(read)) {
        counts_->answered_read(read.asked, read.served, read.since);
    } else if (may_wait(read)) {
        const auto unique = read.unique;
        state_->workers.push(std::move(read));
        heed_early_interrupt(unique);
    } else {
        counts_->because(Reason::read_refused);
        channel_->reply_error(read.unique, -EAGAIN);
        counts_->answered_read(read.asked, read.served, read.since);
    }
    return Fate::elsewhere;
}

bool Server::read_at_once(ReadJob& read) {
    if (calls_) {
        return false;
    }
    if (!reader_) {
        return read.lease->reads_promptly() && ring_reader_.serve(read, RingReader::Wait::never);
    }
    const auto served = reader_->serve_at_once(*read.channel, read.unique, read.request,
                                               *read.lease, state_->read_slots);
    read.served = served.value_or(read.served);
    return served.has_value();
}

bool Server::may_wait(const ReadJob& read) {
    return read.uid == 0 || !state_->config.shared ||
           !state_->workers.holds_too_long(*channel_, read.uid, most_reads(state_->config),
                                           kReadHoldsLong);
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
    if (lease || !state_->negotiation.silent_opens() || request.fh != 0) {
        return Fate::up;
    }
    MadeRequest made;
    return forward(header, state_->seeks.upcall(header, request, made), header.opcode);
}

Server::Fate Server::forward_statx(const abi::InHeader& header, std::span<const std::byte> body) {
    MadeRequest made;
    const auto message = statx_upcall(header, body, made);
    if (message.empty()) {
        counts_->malformed.add();
        channel_->reply_error(header.unique, -EINVAL);
        return Fate::finished;
    }
    return forward(header, message, header.opcode);
}

// `asked_as`, unless 0: the opcode that the kernel asked by, of a request made from another.
Server::Fate Server::forward(const abi::InHeader& header, std::span<const std::byte> message,
                             std::uint32_t asked_as) {
    const auto opcode = asked_as != 0 ? asked_as : header.opcode;
    counts_->upcalls[ThreadCounts::slot(opcode)].add();
    forwarded_ = true;  // before the relay may see its reply
    const bool out =
        state_->upcalls.forward(channel_, ops::with_handle(context_, message), received_, asked_as);
    forwarded_ = out;
    if (out) {
        heed_early_interrupt(header.unique);
    }
    return out ? Fate::elsewhere : Fate::finished;
}

}  // namespace zc
