// Invalidates what the kernel has cached of a directory.
#pragma once

#include <cstdint>

#include "serve/state.hpp"

namespace zc {

// Makes the kernel ask again for what it knows of a directory, its own name included. Any thread:
// the notifications are queued.
void forget_names(State& state, std::uint64_t nodeid);

}  // namespace zc
