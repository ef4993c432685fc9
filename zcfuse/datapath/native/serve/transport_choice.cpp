#include "serve/transport_choice.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <system_error>

#include "serve/state.hpp"

namespace zc {

namespace {

// All queues must register within this time. A busy CPU delays its queue, but not for so long.
constexpr auto kRegisterWithin = std::chrono::milliseconds(3000);
// Prefaulted part of an entry's buffer: enough for most requests and small READs.
constexpr std::size_t kPrefaultBytes = 32 << 10;

// Why a mount that may choose uses no ring.
Reason better_without(const Config& config, Mode mode) {
    if (mode == Mode::splice || mode == Mode::mmap) {
        return Reason::ring_not_for_path;
    }
    // A mount that gives up passthrough for its small files' sake returns none: `pool` serves those
    // on any transport, with fewer wake-ups over a ring.
    if (mode != Mode::automatic || config.wants_silent_opens()) {
        return Reason::none;
    }
    if (!config.passthrough_permitted) {
        return Reason::ring_no_passthrough;
    }
    if (config.source_stacked && config.stack_depth < kMostStackDepth) {
        return Reason::ring_stacked_source;
    }
    return config.source_in_parts ? Reason::ring_parts : Reason::none;
}

Reason refused_by(RingSupport support) {
    return support == RingSupport::missing        ? Reason::ring_not_in_kernel
           : support == RingSupport::switched_off ? Reason::ring_switched_off
                                                  : Reason::none;
}

RingOptions options_for(const Config& config, const Limits& limits) {
    // The kernel's minimum for a payload buffer (fs/fuse/dev_uring.c, Linux 6.18).
    const std::size_t data = std::size_t{limits.max_pages} * sys::page_bytes();
    const std::size_t write = std::size_t{Negotiation::max_write(config.read_only)};
    return {config.ring_depth, std::max({data, write, abi::kMinReadBuffer}),
            config.prefault ? kPrefaultBytes : 0};
}

}  // namespace

TransportWish parse_transport(const std::string& name) {
    if (name == "auto") {
        return TransportWish::automatic;
    }
    if (name == "dev") {
        return TransportWish::dev;
    }
    if (name == "uring") {
        return TransportWish::uring;
    }
    throw std::invalid_argument("unknown transport '" + name + "': one of auto, dev, uring");
}

TransportChoice make_rings(const Config& config, Mode mode, const Limits& limits,
                           const DeviceChannel& session, bool survives) {
    const auto wanted = parse_transport(config.transport);
    if (wanted == TransportWish::dev) {
        return {nullptr, {Reason::ring_not_wanted}};
    }
    const bool demanded = wanted == TransportWish::uring;
    Cause cause{survives           ? Reason::ring_ends_with_daemon
                : session.device() ? refused_by(ring_support())
                                   : Reason::ring_no_device};
    if (!cause && !demanded) {
        cause.reason = better_without(config, mode);
        cause.detail = cause.reason == Reason::ring_not_for_path ? config.path : "";
    }
    if (!cause) {
        try {
            return {std::make_shared<Rings>(session.fd(), options_for(config, limits)), {}};
        } catch (const std::system_error& error) {
            cause = {Reason::ring_failed, error.what()};
        }
    }
    if (demanded) {
        throw std::runtime_error(cause.text());
    }
    return {nullptr, std::move(cause)};
}

void lock_ring_buffers(State& state) {
    if (!state.rings) {
        return;
    }
    state.rings->lock_buffers([&budget = *state.budget](std::span<std::byte> bytes) {
        if (!budget.try_take(bytes.size())) {
            return false;
        }
        const bool locked = sys::mlock(bytes.data(), bytes.size()) == 0;
        if (!locked) {
            budget.give(bytes.size());
        }
        return locked;
    });
}

void begin_rings(State& state, bool replied) {
    if (!state.rings) {
        return;
    }
    auto& gate = state.rings->gate();
    const bool demanded = parse_transport(state.config.transport) == TransportWish::uring;
    if (!replied || !state.negotiation.outcome().over_io_uring()) {
        gate.shut();
        if (replied && demanded) {
            state.ending.failed("io_uring: the kernel did not offer it in INIT", 0);
        }
        return;
    }
    const int error = gate.open(kRegisterWithin);
    if (error == 0 || error == -ECANCELED) {
        return;
    }
    const std::string what = std::to_string(gate.missing()) + " of " +
                             std::to_string(state.rings->queues().size()) +
                             " queues could not register";
    if (demanded) {
        state.ending.failed(("io_uring: " + what).c_str(), error);
        return;
    }
    gate.withdraw(what + ": " + std::strerror(-error));
    if (const int refused = state.rings->withdraw(); refused < 0) {
        state.ending.failed("io_uring: the ring could not be withdrawn", refused);
    }
}

}  // namespace zc
