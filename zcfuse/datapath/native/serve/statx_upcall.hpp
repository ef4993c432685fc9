// Translates STATX for control, which knows only GETATTR: the request becomes a GETATTR, and the
// reply a STATX's.
//
// No state; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "abi/fuse_nodes.hpp"
#include "transport/channel.hpp"

namespace zc {

// A request that is made from another.
using MadeRequest = std::array<std::byte, sizeof(abi::InHeader) + sizeof(abi::ReadIn)>;

// Makes the GETATTR for a STATX in `into`; empty for a truncated STATX.
std::span<const std::byte> statx_upcall(abi::InHeader header, std::span<const std::byte> body,
                                        MadeRequest& into) noexcept;
// Answers the STATX by the amended reply to the GETATTR; false for an error. An ENOSYS would end
// STATX for leased nodes too, so with leases it becomes EOPNOTSUPP.
bool answer_statx(const Channel& channel, std::uint64_t unique, std::span<std::byte> reply,
                  bool any_leased) noexcept;

}  // namespace zc
