// The queue of one CPU: an io_uring, its entries, and the one thread that uses it.
//
// That thread, bound to the CPU, calls receive(), and reply() for everything that it serves at
// once: one system call sends the answer and waits for the next request. Another thread (relay,
// reading worker) writes its reply into the entry, sets a bit and writes an eventfd that the ring
// reads, because only the committing thread is woken on its CPU for the next request.
//
// An entry belongs to its request until that is answered, so depth - 1 slow requests leave one
// entry to all others. Further requests wait in the kernel, and the queue counts them when it gets
// them.
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
    std::size_t depth = 8;          // entries per queue
    std::size_t payload_bytes = 0;  // per entry; INIT negotiates the kernel's minimum
    std::size_t prefault_bytes = 0;
};

struct RingCounts {
    std::size_t busy = 0;        // entries that hold a request now
    std::uint64_t full = 0;      // how often all entries of a queue were held
    std::uint64_t waited = 0;    // requests that waited for an entry of a full queue
    std::uint64_t handed = 0;    // replies that another thread wrote into an entry
    std::uint64_t requests = 0;  // taken in all
    std::size_t bytes = 0;       // of the entries' buffers; allocated at first use
    std::size_t refused = 0;     // entries that the kernel refused
    std::uint64_t unbound = 0;   // queues whose thread is not bound to its CPU
};

class RingQueue final : public Channel {
  public:
    // Creates the ring and all its buffers. Throws std::system_error.
    RingQueue(std::uint16_t cpu, int device, const RingOptions& options,
              std::shared_ptr<RingGate> gate);
    ~RingQueue() override;

    // Before that thread runs (RingEntries::lock).
    std::size_t lock_buffers(const RingEntries::Lock& lock) const;
    // The queue's thread. The first call waits for the gate, binds the thread and registers.
    ssize_t receive(std::span<std::byte> buffer) const noexcept override;
    void wait() const noexcept override {}
    // The queue's thread, at its end: releases the ring. Later replies get ENODEV.
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
