// Copies the bytes of one file into another. No state, safe from any thread.
#pragma once

#include <cstdint>

namespace zc::sys {

// Copies `length` bytes, or fewer where the file ends before; 0 or -errno. Shares extents or copies
// in the kernel where the filesystems can, and else by reading and writing. Holes stay holes, so
// `to` has to be empty there.
int copy_bytes(int from, std::uint64_t offset, std::uint64_t length, int to,
               std::uint64_t to_offset) noexcept;

}  // namespace zc::sys
