// INIT: what the kernel offers, what the machine bears, and what the data path makes of control's
// reply. The INIT request is seen by a serving thread, its reply by the relay; statistics() of any
// thread read the outcome. One lock; under it only SessionMemory is called.
//
// INIT is answered once in a connection's life. A successor of the process that answered it keeps
// the agreed features, whatever control replies to the INIT that it is shown again.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "abi/fuse.hpp"
#include "serve/config.hpp"
#include "serve/surviving/session_memory.hpp"

namespace zc {

struct Limits {
    std::uint16_t max_pages;       // of a request: what pipes and messages bear
    std::uint16_t max_background;  // of requests that the kernel sends ahead
};

// Throws std::invalid_argument for settings that make no sense. max_pages that the pipe of
// `pipe_slots`, the messages of config and the kernel's own limit allow.
Limits choose_limits(const Config& config, std::size_t pipe_slots);

class Negotiation {
  public:
    Negotiation(const Config& config, Limits limits, SessionMemory& session);

    // The max_write that INIT offers, in bytes.
    static std::uint32_t max_write(bool read_only) noexcept;

    // Rings are ready for the kernel's requests. Before INIT is answered.
    void offer_rings(bool demanded);
    // `request`: the INIT, whole. `may_be_silent`: whether opens may send no message.
    void offered(std::span<const std::byte> request, bool may_be_silent);
    // The reply that INIT got; nullopt before.
    std::optional<abi::InitOut> agreed() const { return session_.reply(); }
    // Amends control's reply in place.
    void amend(abi::InitOut& reply);

    struct Outcome {
        bool done = false;
        std::uint32_t minor = 0;
        std::uint64_t flags = 0;
        std::uint32_t max_readahead = 0;
        std::uint16_t max_pages = 0;
        std::uint16_t max_background = 0;
        std::uint32_t max_write = 0;
        std::uint32_t max_stack_depth = 0;
        bool passthrough() const noexcept { return (flags & abi::init::passthrough) != 0; }
        // Whether ENOSYS to OPEN, and to OPENDIR, makes the kernel do without either.
        bool zero_message_opens() const noexcept {
            constexpr auto both = abi::init::no_open_support | abi::init::no_opendir_support;
            return (flags & both) == both;
        }
        bool over_io_uring() const noexcept { return (flags & abi::init::over_io_uring) != 0; }
    };
    Outcome outcome() const;
    Limits limits() const noexcept { return limits_; }
    // Whether opens are to send no message; settled when the kernel's INIT has come.
    bool silent_opens() const noexcept { return silent_opens_.load(std::memory_order_acquire); }
    std::uint32_t stack_depth() const noexcept { return stack_depth_; }

  private:
    const Mode mode_;
    const std::uint32_t stack_depth_;
    const bool read_only_;
    const bool immutable_;
    const bool pushes_;
    std::atomic<bool> silent_opens_;
    SessionMemory& session_;
    Limits limits_;
    mutable std::mutex lock_;
    bool rings_ = false;
    bool rings_demanded_ = false;
    abi::InitIn offer_{};
    Outcome outcome_;
};

}  // namespace zc
