// What makes a file the same file, whatever its names (serve/nodes/table.hpp).
#pragma once

#include <cstdint>

#include "serve/surviving/publish.hpp"

namespace zc {

struct Identity {
    std::uint64_t ino = 0;
    std::uint64_t birth = 0;  // nanoseconds, or a hash of the file handle
    std::uint32_t lease = 0;
    std::uint32_t type = 0;  // S_IFMT bits of the mode
    bool operator==(const Identity&) const noexcept = default;
};

inline constexpr std::uint64_t hash_of(const Identity& identity) noexcept {
    const auto lease = std::uint64_t{identity.lease} << 32 | identity.type;
    return mixed(identity.ino * 0x9E3779B97F4A7C15 ^ mixed(identity.birth ^ lease));
}

}  // namespace zc
