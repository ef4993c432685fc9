// Numbers that Python and the data path must agree on. The binding exports each of them
// (bindings/constants.cpp), so that Python has no copy.
#pragma once

#include <cstddef>
#include <cstdint>

namespace zc {

// Marks node ids and file handles that the data path made.
inline constexpr std::uint64_t kOwnBit = std::uint64_t{1} << 62;
// In the file handle of a request on its way up: nobody opened it, and the rest is a node id.
inline constexpr std::uint64_t kImplicitBit = std::uint64_t{1} << 63;
// In the inode number of an entry that has no file. No ordinary filesystem sets it.
inline constexpr std::uint64_t kMadeInoBit = std::uint64_t{1} << 63;
// st_blksize and the unit of st_blocks, of entries that have no file.
inline constexpr std::uint32_t kBlockBytes = 4096;
inline constexpr std::uint64_t kSectorBytes = 512;
// The longest name: NAME_MAX, as on most filesystems.
inline constexpr std::size_t kNameBytes = 255;
// Outsiders' renames can leave remembered parents that form a cycle. Real paths are shorter.
inline constexpr std::size_t kDepthLimit = 65'536;
// The largest message between kernel and data path: 1 MiB of data and its headers.
inline constexpr std::size_t kMessageBytes = (1 << 20) + 4096;
// Further threads only cost memory, a pipe and a buffer each.
inline constexpr unsigned kMostThreads = 64;
// The kernel's FILESYSTEM_MAX_STACK_DEPTH.
inline constexpr std::uint32_t kMostStackDepth = 2;

// How an index stores the bytes of an archive's member. Kept indexes contain the values.
enum class MemberKind : std::uint8_t {
    directory = 1,
    file,
    sparse,
    symlink,
    deflated,
    bzip2,
    lzma,
    streamed,
    streamed_sparse,
    unreadable,
};

}  // namespace zc
