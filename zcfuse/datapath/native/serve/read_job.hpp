// READs, and who may serve them.
//
// A serving thread answers a READ whose bytes are in memory, as far as can be told. Any other READ
// goes to the reading threads (user_queue.hpp): it waits for its backing file, which may be for
// ever.
//
// Thread-safe. Any thread may write a reply to the request's channel.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "abi/fuse.hpp"
#include "serve/lease.hpp"
#include "serve/ledger.hpp"
#include "transport/channel.hpp"

namespace zc {

struct ReadJob {
    std::shared_ptr<const Channel> channel;
    std::uint64_t unique;
    abi::ReadIn request;
    std::shared_ptr<const FileLease> lease;
    Asked asked{};  // without a name
    std::uint32_t uid = 0;
    Clock::time_point since{};  // when the request was taken off its channel
    std::size_t have = 0;       // bytes that lie in the request's own buffer already
    Served served{};
};

// The READs that serving threads answer although they might wait and, where users share the mount,
// what may have to ask a disk. If all threads did, LOOKUPs would stay on the channel, so one thread
// always remains for those.
class ReadSlots {
  public:
    explicit ReadSlots(std::size_t threads) noexcept
        : free_(static_cast<std::ptrdiff_t>(std::max<std::size_t>(threads, 2)) - 1) {}

    // A slot while it lives, or none.
    class Held {
      public:
        explicit Held(ReadSlots& slots) noexcept
            : slots_(slots), held_(slots.free_.fetch_sub(1, std::memory_order_relaxed) > 0) {}
        Held(const Held&) = delete;
        Held& operator=(const Held&) = delete;
        ~Held() { slots_.free_.fetch_add(1, std::memory_order_relaxed); }
        explicit operator bool() const noexcept { return held_; }

      private:
        ReadSlots& slots_;
        const bool held_;
    };

  private:
    std::atomic<std::ptrdiff_t> free_;
};

}  // namespace zc
