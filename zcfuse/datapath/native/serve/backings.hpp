// Registers backing files with the kernel for passthrough, and says why where that cannot be.
// Thread-safe; the lock is innermost and not held while the kernel is called.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "serve/config.hpp"
#include "serve/lease.hpp"
#include "serve/negotiation.hpp"
#include "transport/channel.hpp"

namespace zc {

class Backings {
  public:
    Backings(Mode mode, const Negotiation& negotiation) noexcept
        : mode_(mode), negotiation_(negotiation) {}

    // nullptr: nothing is registered any more.
    void set_session(std::shared_ptr<const DeviceChannel> session);
    // (nullptr, why not) where the file cannot pass through; ("" where nobody wants it to).
    std::pair<std::shared_ptr<const BackingId>, std::string> add(int fd) const;

  private:
    const Mode mode_;
    const Negotiation& negotiation_;
    mutable std::mutex lock_;
    std::shared_ptr<const DeviceChannel> session_;
};

}  // namespace zc
