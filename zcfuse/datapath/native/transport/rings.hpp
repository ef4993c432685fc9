// All queues of one mount's ring, one per possible CPU, as the kernel requires.
//
// Created completely before the INIT reply: once that reply accepts the ring there is no way back
// to /dev/fuse, so a lack of resources must fail earlier.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "transport/ring_gate.hpp"
#include "transport/ring_queue.hpp"

namespace zc {

class Rings {
  public:
    // Throws std::system_error if a ring or its memory is unavailable.
    Rings(int device, const RingOptions& options);

    const std::vector<std::shared_ptr<const RingQueue>>& queues() const noexcept { return queues_; }
    RingGate& gate() const noexcept { return *gate_; }
    std::size_t depth() const noexcept { return depth_; }
    // Before any queue's thread runs (RingEntries::lock).
    void lock_buffers(const RingEntries::Lock& lock);
    std::size_t locked_bytes() const noexcept { return locked_bytes_; }
    // Makes the kernel stop using the ring if not all queues could register; otherwise it would
    // wait for them. Returns 0 or -errno.
    int withdraw() const noexcept;
    RingCounts counts() const noexcept;

  private:
    int device_;
    std::size_t depth_;
    std::size_t locked_bytes_ = 0;
    std::shared_ptr<RingGate> gate_;
    std::vector<std::shared_ptr<const RingQueue>> queues_;
};

// Whether the kernel's fuse module may use rings.
enum class RingSupport { present, missing, switched_off };
RingSupport ring_support();

}  // namespace zc
