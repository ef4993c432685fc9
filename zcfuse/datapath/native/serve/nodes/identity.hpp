// What makes a file the same file, whatever its names (serve/nodes/table.hpp).
#pragma once

#include <cstddef>
#include <cstdint>

#include "serve/surviving/publish.hpp"

namespace zc {

struct Identity {
    std::uint64_t ino = 0;
    std::uint64_t birth = 0;  // nanoseconds, or a hash of the file handle
    std::uint32_t lease = 0;
    std::uint32_t type = 0;  // S_IFMT bits of the mode, and perhaps kMetacopyType
    bool operator==(const Identity&) const noexcept = default;
};

// A regular file of a union whose bytes lie in another file. Once they are copied, it is another
// file, because the kernel ties an inode to the file that has its bytes.
inline constexpr std::uint32_t kMetacopyType = 0x10000;

inline constexpr bool is_metacopy(const Identity& identity) noexcept {
    return (identity.type & kMetacopyType) != 0;
}

inline constexpr std::uint64_t hash_of(const Identity& identity) noexcept {
    const auto lease = std::uint64_t{identity.lease} << 32 | identity.type;
    return mixed(identity.ino * 0x9E3779B97F4A7C15 ^ mixed(identity.birth ^ lease));
}

struct IdentityHash {
    std::size_t operator()(const Identity& identity) const noexcept { return hash_of(identity); }
};

}  // namespace zc
