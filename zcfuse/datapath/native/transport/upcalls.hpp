// Requests on their way to control, and the list of upcalls in flight.
//
// An upcall is the unchanged request as one message of a SEQPACKET socket, sent without waiting:
// control may be busy, and its replies are blocking writes. Messages that do not fit wait in order
// on an overflow list for the relay thread. Each request that needs a reply is on the list from
// before the send until its reply is taken. If the reply cannot arrive any more (the peer is gone,
// the message was too large, the deadline passed), the client gets EIO. A later reply is dropped,
// and its grants (a lookup, an open handle) are returned to control.
//
// Each user has a share of control's tasks (upcall_shares.hpp). A request beyond the share waits,
// and holds no task. Over a ring it holds an entry, so a user's requests may hold half of a queue's
// entries for long; all users together leave one entry. A READ over /dev/fuse holds a place among
// those that the kernel sends ahead. A request beyond a user's share of those gets EAGAIN.
//
// Thread-safe. One lock, innermost except for Channel writes, which take no lock.
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
#include <string>
#include <unordered_map>
#include <vector>

#include "abi/fuse.hpp"
#include "sys/syscalls.hpp"
#include "transport/channel.hpp"
#include "transport/upcall_shares.hpp"

namespace zc {

struct Upcall {
    std::shared_ptr<const Channel> channel;
    std::uint32_t opcode;
    std::uint64_t nodeid;
    std::chrono::steady_clock::time_point since;
    std::uint32_t pid;
    std::uint32_t uid;
    std::string name;      // what a LOOKUP asks for
    bool counted = false;  // in its user's share
    bool waits = false;    // for its user's share
};

class Upcalls {
  public:
    // `tasks`: requests that control works on at a time; `ring_depth`: entries of a ring's
    // queue; 0 if its users need no protection from one another.
    Upcalls(sys::UniqueFd socket, std::size_t tasks, std::size_t ring_depth);

    // Sends a whole request (with a checked header), or queues it, or answers an error. `since` is
    // when it left its channel. `asked_as`, unless 0, is the kernel's opcode if the request was
    // translated. Returns whether a reply will follow.
    bool forward(const std::shared_ptr<const Channel>& channel, std::span<const std::byte> request,
                 std::chrono::steady_clock::time_point since, std::uint32_t asked_as = 0);
    // Removes a reply's upcall from the list.
    std::optional<Upcall> take(std::uint64_t unique);
    // Answers EINTR to a request that waits for its user's share, and returns it.
    std::optional<Upcall> withdraw(std::uint64_t unique);
    // Whether the request with that number is an upcall in flight, and its channel.
    std::shared_ptr<const Channel> channel_of(std::uint64_t unique) const;

    // For the relay thread. Calls `GivenUp` for each upcall answered EIO, without a lock.
    using GivenUp = std::function<void(const Upcall&)>;
    int socket() const noexcept { return socket_.get(); }
    int wake_event() const noexcept { return wake_.get(); }
    bool has_overflow() const;
    // Returns false without memory for a message.
    bool send_overflow(const GivenUp& given_up);
    void wake() const noexcept;
    void expire(std::chrono::seconds age, const GivenUp& given_up);
    // Answers EAGAIN to requests that hold too much of a ring's queue or of the kernel for long.
    void relieve(const GivenUp& given_up);
    // Returns the grants of a late reply.
    void undo(std::span<const std::byte> late_reply);
    // The peer is gone: answers EIO to all upcalls, present and future.
    void close();

    struct Statistics {
        std::size_t out;
        std::size_t overflow_peak;
        std::uint64_t given_up;
        std::uint64_t late;
        std::size_t waiting;    // requests that wait for their user's share now
        std::uint64_t waited;   // requests that have waited for it
        std::uint64_t refused;  // requests refused because their user held too much for long
    };
    Statistics statistics() const;

  private:
    struct Most {
        const Channel* place = nullptr;  // a ring, or nullptr for all of /dev/fuse
        std::size_t of_user = 0;
        std::size_t of_users = 0;
    };
    std::optional<Most> most_beside(const Upcall& upcall) const noexcept;
    bool holds_too_much(const Upcall& upcall) const;
    using Out = std::unordered_map<std::uint64_t, Upcall>;
    Out::iterator take_off(Out::iterator at);
    void end_locked(const Upcall& upcall);
    ssize_t send_locked(std::span<const std::byte> request);
    void give_up(std::uint64_t unique, const Upcall& upcall, int error);
    void give_back(const Upcall& upcall, std::span<const std::byte> body);
    void forget(std::uint64_t nodeid);
    void forward_own(abi::Opcode opcode, std::uint64_t nodeid, std::span<const std::byte> body);

    sys::UniqueFd socket_;
    sys::UniqueFd wake_;
    const std::size_t ring_depth_;
    mutable std::mutex lock_;
    UpcallShares shares_;
    std::uint64_t waited_ = 0;
    std::uint64_t refused_ = 0;
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
