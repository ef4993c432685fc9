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

// "" or why a mount that may choose does without a ring.
std::string better_without(const Config& config, Mode mode) {
    if (mode == Mode::splice || mode == Mode::mmap) {
        return "path " + config.path + " does not work over io_uring";
    }
    // A mount that gives up passthrough for its small files' sake returns "" here: `pool` serves
    // those on any transport, with fewer wake-ups over a ring.
    if (mode == Mode::automatic && !config.passthrough_permitted && !config.immutable) {
        return "without passthrough (CAP_SYS_ADMIN) most bytes go by splice, which io_uring lacks";
    }
    if (mode == Mode::automatic && config.source_stacked && config.stack_depth < 2) {
        return "passthrough takes no stacked source (--stack-depth 2): most bytes go by splice, "
               "which io_uring lacks";
    }
    if (mode == Mode::automatic && config.source_in_parts && !config.immutable) {
        return "files of this tree are parts of files: they go by splice, which io_uring lacks";
    }
    return "";
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
                           const DeviceChannel& session) {
    const auto wanted = parse_transport(config.transport);
    if (wanted == TransportWish::dev) {
        return {nullptr, "as demanded"};
    }
    const bool demanded = wanted == TransportWish::uring;
    std::string reason = session.device() ? rings_refused() : "a socket has none";
    if (reason.empty() && !demanded) {
        reason = better_without(config, mode);
    }
    if (reason.empty()) {
        try {
            return {std::make_shared<Rings>(session.fd(), options_for(config, limits)), ""};
        } catch (const std::system_error& error) {
            reason = error.what();
        }
    }
    if (demanded) {
        throw std::runtime_error("io_uring: " + reason);
    }
    return {nullptr, reason};
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
    const std::string what = "io_uring: " + std::to_string(gate.missing()) + " of " +
                             std::to_string(state.rings->queues().size()) +
                             " queues could not register";
    if (demanded) {
        state.ending.failed(what.c_str(), error);
        return;
    }
    gate.withdraw(what + ": " + std::strerror(-error));
    if (const int refused = state.rings->withdraw(); refused < 0) {
        state.ending.failed("io_uring: the ring could not be withdrawn", refused);
    }
}

}  // namespace zc
