#include "serve/server.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <exception>

#include "sys/threads.hpp"

namespace zc {

namespace {

// More than any request of a read-only mount (names and small structures; a SETXATTR has 64 KiB),
// and more than the header and max_write that the kernel wants room for.
constexpr std::size_t kRequestBytes = 128 << 10;
constexpr std::size_t kWritableRequestBytes = (1 << 20) + 4096;

ReadPolicy policy_of(const State& state) {
    return {state.mode, state.config.splice_min,
            std::size_t{state.negotiation.limits().max_pages} * sys::page_bytes(),
            state.config.prefault};
}

template <typename Structure>
bool parse(std::span<const std::byte> bytes, Structure& into) noexcept {
    if (bytes.size() < sizeof into) {
        return false;
    }
    std::memcpy(&into, bytes.data(), sizeof into);
    return true;
}

}  // namespace

Server::Server(std::shared_ptr<State> state, std::shared_ptr<const Channel> channel)
    : state_(std::move(state)),
      channel_(std::move(channel)),
      counts_(state_->ledger.join(channel_->is_ring() ? "ring" : "serve")),
      context_{*state_, *counts_, {}},
      ring_reader_(state_->mode, state_->config.splice_min, policy_of(*state_).max_read, counts_),
      buffer_(state_->config.read_only ? kRequestBytes : kWritableRequestBytes) {
    if (channel_->is_ring()) {
        return;
    }
    reader_.emplace(policy_of(*state_), state_->windows, state_->budget, counts_);
    state_->pool_bytes += reader_->buffer().size();
    state_->pool_locked += reader_->buffer().locked() ? reader_->buffer().size() : 0;
    state_->pipe_slots = reader_->pipe_slots();
}

void Server::run() noexcept {
    sys::yield_to_clients();
    try {
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
    abi::InHeader header{};
    if (!parse(message, header) || header.len != message.size()) {
        counts_->malformed.add();
        return;
    }
    counts_->requests[ThreadCounts::slot(header.opcode)].add();
    const auto body = message.subspan(sizeof header);
    switch (static_cast<abi::Opcode>(header.opcode)) {
        case abi::Opcode::read:
            if (serve_read(header, body)) {
                return;
            }
            break;
        case abi::Opcode::lseek:
            if (serve_lseek(header, body)) {
                return;
            }
            break;
        case abi::Opcode::interrupt: {
            ++state_->interrupts;
            abi::InterruptIn interrupt{};
            // libfuse would keep one whose request it never saw, for ever.
            if (!parse(body, interrupt) ||
                state_->upcalls.channel_of(interrupt.unique) == nullptr) {
                return;
            }
            break;
        }
        case abi::Opcode::init: {
            abi::InitIn init{};
            if (parse(body, init)) {
                state_->negotiation.offered(init);
            }
            break;
        }
        default:
            if (ops::serve(context_, {channel_, header, body})) {
                return;
            }
            if (static_cast<abi::Opcode>(header.opcode) == abi::Opcode::statx &&
                !state_->mirrors.none()) {
                hand_up_statx(header, body);
                return;
            }
            break;
    }
    hand_up(header, message);
}

bool Server::serve_read(const abi::InHeader& header, std::span<const std::byte> body) {
    abi::ReadIn request{};
    if (!parse(body, request)) {
        counts_->malformed.add();
        channel_->reply_error(header.unique, -EINVAL);
        return true;
    }
    const auto lease = state_->leases.find(header.nodeid);
    if (!lease) {
        if (state_->mode != Mode::upcall) {
            counts_->because(Reason::no_lease);
        }
        return false;
    }
    ReadJob read{channel_, header.unique, request, lease};
    if (!reader_) {
        if (!ring_reader_.serve(read, RingReader::Wait::never)) {
            state_->workers.push(std::move(read));
        }
        return true;
    }
    auto job = state_->reads.begin(std::move(read));
    while (job) {
        reader_->serve(*job->channel, job->unique, job->request, *job->lease);
        job = state_->reads.next();
    }
    return true;
}

// Where the data and the holes are, for a file that is whole in one backing file. The backing
// descriptor's own position moves; nothing here reads by it.
bool Server::serve_lseek(const abi::InHeader& header, std::span<const std::byte> body) {
    struct LseekIn {
        std::uint64_t fh;
        std::uint64_t offset;
        std::uint32_t whence;
        std::uint32_t padding;
    } request{};
    const auto lease = state_->leases.find(header.nodeid);
    if (!lease || !parse(body, request)) {
        return false;
    }
    const auto* whole = lease->whole_file();
    if (whole == nullptr) {
        return false;
    }
    const auto offset =
        ::lseek(whole->get(), static_cast<off_t>(request.offset), static_cast<int>(request.whence));
    if (offset < 0) {
        channel_->reply_error(header.unique, -errno);
        return true;
    }
    auto out = static_cast<std::uint64_t>(offset);
    abi::OutHeader reply{sizeof reply + sizeof out, 0, header.unique};
    const std::array<iovec, 2> pieces{{{&reply, sizeof reply}, {&out, sizeof out}}};
    channel_->reply(pieces);
    return true;
}

// control knows no STATX, and its ENOSYS would switch it off for leased nodes too: it is asked for
// the attributes, and the relay makes of its reply what the kernel wants.
void Server::hand_up_statx(abi::InHeader header, std::span<const std::byte> body) {
    abi::StatxIn asked{};
    if (!parse(body, asked)) {
        counts_->malformed.add();
        channel_->reply_error(header.unique, -EINVAL);
        return;
    }
    counts_->upcalls[ThreadCounts::slot(header.opcode)].add();
    const abi::GetattrIn getattr{asked.getattr_flags, 0, asked.fh};
    std::array<std::byte, sizeof header + sizeof getattr> message{};
    header.opcode = static_cast<std::uint32_t>(abi::Opcode::getattr);
    header.len = message.size();
    header.total_extlen = 0;
    std::memcpy(message.data(), &header, sizeof header);
    std::memcpy(message.data() + sizeof header, &getattr, sizeof getattr);
    state_->upcalls.hand_up(channel_, message, static_cast<std::uint32_t>(abi::Opcode::statx));
}

void Server::hand_up(const abi::InHeader& header, std::span<const std::byte> message) {
    counts_->upcalls[ThreadCounts::slot(header.opcode)].add();
    state_->upcalls.hand_up(channel_, message);
}

}  // namespace zc
