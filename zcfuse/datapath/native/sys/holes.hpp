// Where reading a hole through a mapping is not free. No state, safe from any thread.
#pragma once

namespace zc::sys {

// True where a fault in a hole of the file allocates memory that stays the file's until it is
// truncated, as tmpfs and memfd do, and the file has holes: mapping it could fill the filesystem
// that is only read. read(2) of such a hole allocates nothing. -errno when the file cannot be
// asked.
int mapping_fills_holes(int fd) noexcept;

}  // namespace zc::sys
