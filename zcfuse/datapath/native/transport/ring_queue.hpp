// The queue of one CPU: an io_uring, its entries, and the one thread that uses it.
//
// That thread, bound to the CPU, calls receive() and everything that it serves at once answers with
// reply(): one system call sends the answer and waits for the next request. Another thread (relay,
// reading worker) lays its reply into the entry, leaves a bit, and writes an eventfd that the ring
// reads, because only the thread that commits an entry gets the next request of it woken in place.
//
// How many requests may be held up on a CPU: an entry belongs to its request until that is
// answered, so that depth - 1 slow ones leave one entry to all others. Beyond that they wait in the
// kernel, and the queue counts them when it gets to them.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "sys/uring.hpp"
#include "transport/channel.hpp"
#include "transport/ring_entries.hpp"
#include "transport/ring_gate.hpp"

namespace zc {

struct RingOptions {
    std::size_t depth = 8;          // entries a queue
    std::size_t payload_bytes = 0;  // an entry; the kernel's least is what INIT negotiates
    std::size_t prefault_bytes = 0;
};

struct RingCounts {
    std::size_t busy = 0;        // entries that hold a request now
    std::uint64_t full = 0;      // how often all entries of a queue came to be held
    std::uint64_t waited = 0;    // requests that came only when an entry of a full queue was free
    std::uint64_t handed = 0;    // replies that another thread laid into an entry
    std::uint64_t requests = 0;  // taken in all
    std::size_t bytes = 0;       // of the entries' buffers; there when they are first used
    std::size_t refused = 0;     // entries that the kernel did not take
    std::uint64_t unbound = 0;   // queues whose thread could not be bound to its CPU
};

class RingQueue final : public Channel {
  public:
    // Makes the ring and all its buffers. Throws std::system_error.
    RingQueue(std::uint16_t cpu, int device, const RingOptions& options,
              std::shared_ptr<RingGate> gate);
    ~RingQueue() override;

    // Before that thread runs (RingEntries::lock).
    std::size_t lock_buffers(const RingEntries::Lock& lock) const;
    // The queue's thread. The first call waits for the gate, binds the thread and registers.
    ssize_t receive(std::span<std::byte> buffer) const noexcept override;
    void wait() const noexcept override {}
    // The queue's thread, at its end: lets go of the ring. Replies get ENODEV from then on.
    void close() const noexcept;

    // Any thread.
    ssize_t reply(std::span<const iovec> pieces) const noexcept override;
    ssize_t reply_from_pipe(int, std::size_t, std::span<std::byte>) const noexcept override {
        return -EOPNOTSUPP;
    }
    std::span<std::byte> payload(std::uint64_t unique) const noexcept override;
    std::size_t locked_payload() const noexcept override;
    bool is_ring() const noexcept override { return true; }
    void add_to(RingCounts& counts) const noexcept;

  private:
    class Core;
    std::unique_ptr<Core> core_;
};

}  // namespace zc
