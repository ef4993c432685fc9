// Requests on their way to control, and the list of those that are out.
//
// A request goes up unchanged as one message of a SEQPACKET socket, never with a wait: control may
// be busy, and it writes its replies with a call that blocks. What does not fit at once is kept in
// order on an overflow list that the relay thread sends on. Each request that wants a reply is on
// the list of those out, from before it is sent until its reply has been taken; one whose reply
// cannot come any more (the peer is gone, the message was too large, the deadline passed) is
// answered EIO, so that no client waits for ever. A reply that comes after that is dropped, and
// what it granted (a lookup, an open handle) is given back to control.
//
// Thread-safe. One lock, innermost but for Channel writes, which take none of ours.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "abi/fuse.hpp"
#include "sys/syscalls.hpp"
#include "transport/channel.hpp"

namespace zc {

struct Upcall {
    std::shared_ptr<const Channel> channel;
    std::uint32_t opcode;
    std::uint64_t nodeid;
    std::chrono::steady_clock::time_point since;
};

class Upcalls {
  public:
    explicit Upcalls(sys::UniqueFd socket);

    // Sends a whole request (its header has been checked), or keeps it, or answers EIO. `since`:
    // when it was taken off its channel. `asked_as`, unless 0, is the opcode that the kernel asked
    // by where the request is made from another. Returns whether its reply is to be waited for.
    bool hand_up(const std::shared_ptr<const Channel>& channel, std::span<const std::byte> request,
                 std::chrono::steady_clock::time_point since, std::uint32_t asked_as = 0);
    // Takes the upcall that a reply belongs to off the list.
    std::optional<Upcall> take(std::uint64_t unique);
    // Whether the request with that number went up and has no reply yet, and where it came from.
    std::shared_ptr<const Channel> channel_of(std::uint64_t unique) const;

    // The relay thread's part. `GivenUp` is called with each upcall that was answered EIO, with no
    // lock held.
    using GivenUp = std::function<void(const Upcall&)>;
    int socket() const noexcept { return socket_.get(); }
    int wake_event() const noexcept { return wake_.get(); }
    bool has_overflow() const;
    // Returns false when there is no memory for a message now.
    bool send_overflow(const GivenUp& given_up);
    void wake() const noexcept;
    void expire(std::chrono::seconds age, const GivenUp& given_up);
    // Gives back what a late reply granted.
    void undo(std::span<const std::byte> late_reply);
    // The peer is gone: answers EIO to all that are out, and to all that come.
    void close();

    struct Statistics {
        std::size_t out;
        std::size_t overflow_peak;
        std::uint64_t given_up;
        std::uint64_t late;
    };
    Statistics statistics() const;

  private:
    ssize_t send_locked(std::span<const std::byte> request);
    void give_up(std::uint64_t unique, const Upcall& upcall, int error);
    void give_back(const Upcall& upcall, std::span<const std::byte> body);
    void forget(std::uint64_t nodeid);
    void hand_up_own(abi::Opcode opcode, std::uint64_t nodeid, std::span<const std::byte> body);

    sys::UniqueFd socket_;
    sys::UniqueFd wake_;
    mutable std::mutex lock_;
    std::unordered_map<std::uint64_t, Upcall> out_;
    std::unordered_map<std::uint64_t, Upcall> given_up_;  // until their late reply comes
    std::deque<std::vector<std::byte>> overflow_;
    std::size_t overflow_peak_ = 0;
    std::uint64_t given_up_count_ = 0;
    std::uint64_t late_ = 0;
    std::uint64_t own_unique_ = 0;
    bool closed_ = false;
};

}  // namespace zc
