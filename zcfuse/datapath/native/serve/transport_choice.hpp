// Which transport a mount gets: /dev/fuse, or a ring beside it. Decided in two steps, because the
// kernel says only in INIT what it offers, and because nothing can be undone after INIT's reply:
// make_rings() before anything is served, begin_rings() by the relay with that reply.
#pragma once

#include <memory>
#include <string>

#include "serve/config.hpp"
#include "serve/negotiation.hpp"
#include "transport/channel.hpp"
#include "transport/rings.hpp"

namespace zc {

struct State;

// Throws std::invalid_argument, naming what is allowed.
TransportWish parse_transport(const std::string& name);

struct TransportChoice {
    std::shared_ptr<Rings> rings;  // nullptr: /dev/fuse alone
    std::string reason;            // why there are no rings
};

// Throws std::runtime_error with the reason if the user demands a ring and the machine offers none.
TransportChoice make_rings(const Config& config, Mode mode, const Limits& limits,
                           const DeviceChannel& session);

// Locks the prefaulted pages of the entries' buffers, as far as the budget allows.
void lock_ring_buffers(State& state);

// After INIT's reply: lets the queues register where it accepted the ring. Where they cannot, the
// kernel would wait for them: then the ring is withdrawn, or the connection ended where it was
// demanded. Bounded.
void begin_rings(State& state, bool replied);

}  // namespace zc
