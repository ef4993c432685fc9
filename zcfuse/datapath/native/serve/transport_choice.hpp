// Chooses a mount's transport: /dev/fuse alone, or a ring beside it. The choice has two steps,
// because the kernel makes its offer only in INIT, and INIT's reply is final: make_rings() runs
// before serving starts, and the relay calls begin_rings() with the reply.
#pragma once

#include <memory>
#include <string>

#include "serve/config.hpp"
#include "serve/negotiation.hpp"
#include "serve/reasons.hpp"
#include "transport/channel.hpp"
#include "transport/rings.hpp"

namespace zc {

struct State;

// Throws std::invalid_argument, naming what is allowed.
TransportWish parse_transport(const std::string& name);

struct TransportChoice {
    std::shared_ptr<Rings> rings;  // nullptr: /dev/fuse alone
    Cause cause;                   // why there are no rings
};

// A mount that survives its daemon has no ring. Throws std::runtime_error with the cause if the
// user demands a ring and gets none.
TransportChoice make_rings(const Config& config, Mode mode, const Limits& limits,
                           const DeviceChannel& session, bool survives);

// Locks the prefaulted pages of the entries' buffers, as far as the budget allows.
void lock_ring_buffers(State& state);

// Lets the queues register after INIT's reply accepted the ring. If they cannot, the kernel would
// wait for them; so this withdraws the ring, or ends the connection if the user demanded a ring.
// Bounded.
void begin_rings(State& state, bool replied);

}  // namespace zc
