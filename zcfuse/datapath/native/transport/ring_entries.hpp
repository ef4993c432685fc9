// The entries of one ring queue: their buffers, the request that each holds, and the answered ones.
//
// An entry is free (the kernel has it), held (its request waits for a reply) or done (its reply
// waits for the ring thread to commit it). Only the ring thread calls fetch() and take_done(); any
// thread may call payload() and reply(). An entry holds a request under its `unique` until one
// caller of reply() takes it, so it is answered once; a second caller gets ENOENT, as on /dev/fuse.
// The hand-over is one bit per entry, without a lock or an allocation.
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

    // `payload_bytes` per entry. The headers and the first `prefault_bytes` are populated at once;
    // the rest costs memory at its first use. Throws std::system_error without memory.
    RingEntries(std::size_t depth, std::size_t payload_bytes, std::size_t prefault_bytes);
    RingEntries(const RingEntries&) = delete;
    RingEntries& operator=(const RingEntries&) = delete;
    ~RingEntries();

    // Passes the populated memory to `lock`, first the headers and then each payload's start, until
    // it refuses. Not while the entries are in use. Returns the locked bytes.
    using Lock = std::function<bool(std::span<std::byte>)>;
    std::size_t lock(const Lock& lock);
    // The number of locked bytes at each payload's start.
    std::size_t locked_payload() const noexcept { return locked_payload_; }
    std::size_t mapped_bytes() const noexcept { return mapped_bytes_; }

    std::size_t depth() const noexcept { return depth_; }
    // Header and payload, for REGISTER.
    std::span<const iovec> buffers(std::size_t index) const noexcept;
    std::uint64_t commit_id(std::size_t index) const noexcept { return slots_[index].commit_id; }
    // Whether a client waits for the reply. None waits for a RELEASE.
    bool is_awaited(std::size_t index) const noexcept { return slots_[index].awaited; }

    // Assembles the request in an entry into the form that /dev/fuse delivers, and holds the entry.
    // Returns its size; -EPROTO if it names no request; or, if `message` is too short or its parts
    // do not add up, -EMSGSIZE after answering EIO.
    ssize_t fetch(std::size_t index, std::span<std::byte> message) noexcept;
    // One bit per entry answered since the last call; these are free now.
    std::uint64_t take_done() noexcept;

    std::span<std::byte> payload(std::uint64_t unique) const noexcept;
    // Writes a reply into its request's entry. Returns its size or -errno (ENOENT: unknown request;
    // EMSGSIZE: too large, and the request stays held). `first` is true if no other answer was
    // pending; then the ring thread must be woken.
    ssize_t reply(std::span<const iovec> pieces, bool& first) noexcept;

    // The number of held and done entries. Any thread.
    std::size_t busy() const noexcept { return busy_.load(std::memory_order_relaxed); }

  private:
    struct Slot {
        std::atomic<std::uint64_t> unique{0};  // of the held request; 0 without one
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
