// The entries of one ring queue: their buffers, which request each holds, and which are answered.
//
// An entry is free (the kernel has it), held (a request lies in its buffers and wants a reply) or
// done (its reply lies there and the ring thread has yet to commit it). fetch() and take_done() are
// the ring thread's; payload() and reply() may be called by any thread. A request is held under its
// `unique` until one caller of reply() takes it, so that it is answered once: who comes second gets
// ENOENT, as on /dev/fuse. The hand-over is one bit an entry: no lock, and nothing to allocate.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "abi/fuse.hpp"
#include "abi/fuse_uring.hpp"
#include "sys/syscalls.hpp"

namespace zc {

class RingEntries {
  public:
    static constexpr std::size_t kMostEntries = 64;  // the bits of a hand-over

    // `payload_bytes` an entry, of which the first `prefault_bytes` are there at once, and the
    // headers with them; the rest costs memory when it is first used. Throws std::system_error when
    // there is no room.
    RingEntries(std::size_t depth, std::size_t payload_bytes, std::size_t prefault_bytes);
    RingEntries(const RingEntries&) = delete;
    RingEntries& operator=(const RingEntries&) = delete;
    ~RingEntries();

    // Hands `lock` what is there at once, the headers first and then the beginning of each payload,
    // until it refuses. Not while the entries are in use. Returns the bytes that were locked.
    using Lock = std::function<bool(std::span<std::byte>)>;
    std::size_t lock(const Lock& lock);
    // How many of each payload's first bytes are locked.
    std::size_t locked_payload() const noexcept { return locked_payload_; }
    std::size_t mapped_bytes() const noexcept { return mapped_bytes_; }

    std::size_t depth() const noexcept { return depth_; }
    // Header and payload, as REGISTER wants them.
    std::span<const iovec> buffers(std::size_t index) const noexcept;
    std::uint64_t commit_id(std::size_t index) const noexcept { return slots_[index].commit_id; }
    // Whether somebody waits for the reply. Nobody does for that to a RELEASE.
    bool is_awaited(std::size_t index) const noexcept { return slots_[index].awaited; }

    // Puts the request that the kernel has laid into an entry together, as /dev/fuse would have
    // given it, and holds the entry. Returns its size; or -EPROTO when it names no request; or,
    // when `message` is too short for it or its parts do not add up, -EMSGSIZE after having
    // answered it EIO.
    ssize_t fetch(std::size_t index, std::span<std::byte> message) noexcept;
    // A bit for each entry that has been answered since the last call; they are free now.
    std::uint64_t take_done() noexcept;

    std::span<std::byte> payload(std::uint64_t unique) const noexcept;
    // Lays a reply into the entry of its request. Returns its size or -errno (ENOENT: no such
    // request; EMSGSIZE: too large, and the request is still held). `first` tells whether no other
    // answer was waiting to be taken: then the ring thread has to be woken.
    ssize_t reply(std::span<const iovec> pieces, bool& first) noexcept;

    // Entries that are not free. Any thread.
    std::size_t busy() const noexcept { return busy_.load(std::memory_order_relaxed); }

  private:
    struct Slot {
        std::atomic<std::uint64_t> unique{0};  // of the request that is held; 0: none
        std::uint64_t commit_id = 0;           // the ring thread's
        bool awaited = true;                   // likewise
        iovec buffers[2]{};
    };
    abi::uring::EntryHeader& header(std::size_t index) const noexcept;
    Slot* find(std::uint64_t unique) const noexcept;
    bool mark_done(std::size_t index) noexcept;

    std::size_t depth_;
    std::size_t payload_bytes_;
    std::size_t prefaulted_bytes_;  // of each payload
    std::size_t locked_payload_ = 0;
    std::size_t mapped_bytes_ = 0;
    std::byte* mapped_ = nullptr;
    std::unique_ptr<Slot[]> slots_;
    std::atomic<std::uint64_t> done_{0};
    std::atomic<std::size_t> busy_{0};
};

}  // namespace zc
