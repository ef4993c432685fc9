// STATX for control: it knows none, so it is asked by a GETATTR, and its reply becomes a STATX's.
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

// The GETATTR that stands for a STATX, in `into`; empty for a STATX that is cut short.
std::span<const std::byte> statx_upcall(abi::InHeader header, std::span<const std::byte> body,
                                        MadeRequest& into) noexcept;
// Answers the STATX by the GETATTR's reply, which is amended already; false for one that is an
// error. An ENOSYS of control would end STATX for leased nodes too, so it becomes EOPNOTSUPP where
// there are any.
bool answer_statx(const Channel& channel, std::uint64_t unique, std::span<std::byte> reply,
                  bool any_leased) noexcept;

}  // namespace zc
