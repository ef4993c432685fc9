#include "serve/sources/source.hpp"

namespace zc {

std::uint64_t mixed_ino(std::uint64_t device, std::uint64_t ino) noexcept {
    std::uint64_t value = device * 0x9E3779B97F4A7C15 + ino;
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
    value = (value ^ value >> 27) * 0x94D049BB133111EB;
    value ^= value >> 31;
    return value != 0 ? value : 1;
}

}  // namespace zc
