// The last step of several methods: bytes or page references into the sink, in as many calls as the
// kernel needs.
#pragma once

#include <cstddef>
#include <span>

#include "method.hpp"

namespace zc::transfer {

// Writes all of `bytes`.
void write_all(const Job& job, std::span<const std::byte> bytes, Tally& tally);

// Splices `size` bytes that are in the pipe into the sink.
void drain(int pipe, const Job& job, std::size_t size, unsigned flags, Tally& tally);

// For splice(2) into a socket: whether more follows after `done` bytes.
unsigned more_follows(const Job& job, std::uint64_t done);

// The number of bytes for the next call.
std::size_t next_block(const Job& job, std::uint64_t done, std::size_t most = SIZE_MAX);

}  // namespace zc::transfer
