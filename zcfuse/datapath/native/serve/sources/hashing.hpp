// Mixing 64 bits into others: for inode numbers and keys, which nobody attacks.
#pragma once

#include <cstdint>
#include <string_view>

namespace zc {

inline constexpr std::uint64_t mix(std::uint64_t into, std::uint64_t value) noexcept {
    value += 0x9E37'79B9'7F4A'7C15 + into * 0xD6E8'FEB8'6659'FD93;
    value = (value ^ value >> 30) * 0xBF58'476D'1CE4'E5B9;
    value = (value ^ value >> 27) * 0x94D0'49BB'1331'11EB;
    return value ^ value >> 31;
}

inline constexpr std::uint64_t mix(std::uint64_t into, std::string_view text) noexcept {
    std::uint64_t hash = 0xCBF2'9CE4'8422'2325 ^ text.size();
    for (const char letter : text) {
        hash = (hash ^ static_cast<unsigned char>(letter)) * 0x100'0000'01B3;
    }
    return mix(into, hash);
}

}  // namespace zc
