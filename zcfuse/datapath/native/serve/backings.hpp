// Registers backing files with the kernel for passthrough, or gives the reason against it.
// Thread-safe; the lock is innermost, and calls to the kernel are made outside of it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "serve/config.hpp"
#include "serve/lease.hpp"
#include "serve/negotiation.hpp"
#include "serve/reasons.hpp"
#include "serve/surviving/handle_memory.hpp"
#include "transport/channel.hpp"

namespace zc {

class Backings {
  public:
    // Borrows both.
    Backings(Mode mode, const Negotiation& negotiation, HandleMemory& handles) noexcept
        : mode_(mode), negotiation_(negotiation), handles_(handles) {}

    // nullptr ends registrations.
    void set_session(std::shared_ptr<const DeviceChannel> session);
    // The descriptor that belongs to the connection; nullptr once registrations have ended.
    std::shared_ptr<const DeviceChannel> session() const;
    // What the kernel keeps of a file, even after this process: the open file itself or, so that a
    // lease on that ends with this process, another open file of it.
    enum class Keeps : std::uint8_t { itself, another };
    // Returns (nullptr, cause) if the file cannot pass through; there is no cause if passthrough is
    // not wanted.
    std::pair<std::shared_ptr<const BackingId>, Cause> add(int fd,
                                                           Keeps keeps = Keeps::itself) const;

  private:
    const Mode mode_;
    const Negotiation& negotiation_;
    HandleMemory& handles_;
    mutable std::mutex lock_;
    std::shared_ptr<const DeviceChannel> session_;
};

}  // namespace zc
