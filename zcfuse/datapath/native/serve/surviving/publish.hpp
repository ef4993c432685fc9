// What all memory that may survive its process has in common (serve/surviving).
//
// SIGKILL may stop a thread between any two stores. So a change takes effect by one store, behind
// those that it depends on.
#pragma once

#include <atomic>
#include <cstdint>
#include <stdexcept>

namespace zc {

// What an earlier process left cannot be used: it is damaged, or of another layout.
class DamagedState : public std::invalid_argument {
  public:
    using std::invalid_argument::invalid_argument;
};

// Stores behind all earlier stores, as another process sees them after a sudden end of this one.
template <typename T>
void publish(T& at, T value) noexcept {
    std::atomic_ref<T>(at).store(value, std::memory_order_release);
}

inline constexpr std::uint64_t mixed(std::uint64_t value) noexcept {
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
    value = (value ^ value >> 27) * 0x94D049BB133111EB;
    return value ^ value >> 31;
}

}  // namespace zc
