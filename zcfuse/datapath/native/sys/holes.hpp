// Filesystems where reading a hole through a mapping allocates. No state, safe from any thread.
#pragma once

namespace zc::sys {

// True if the file has holes and a fault in a hole allocates memory that stays until a truncation,
// as on tmpfs and memfd: mapping it could fill a filesystem that is only read. read(2) of such a
// hole allocates nothing. -errno if the file cannot be queried.
int mapping_fills_holes(int fd) noexcept;

}  // namespace zc::sys
