// Invalidates what the kernel has cached of a directory, or of a file.
#pragma once

#include <cstdint>

#include "serve/state.hpp"

namespace zc {

// Makes the kernel ask again for what it knows of a directory, its own name included. Any thread:
// the notifications are queued.
void forget_names(State& state, std::uint64_t nodeid);

// Makes the kernel ask again for the attributes of a file, before this returns. Any thread: pages
// stay, so that the kernel waits for no request.
void forget_attributes(const State& state, std::uint64_t nodeid);

}  // namespace zc
