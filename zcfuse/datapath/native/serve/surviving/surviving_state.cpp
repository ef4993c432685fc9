#include "serve/surviving/surviving_state.hpp"

#include <algorithm>
#include <cerrno>
#include <string>
#include <system_error>

#include "sys/syscalls.hpp"

namespace zc {

namespace {

constexpr std::size_t kParts = 6;
// Five bits of the layout are each part's.
static_assert(std::max({NodeMemory::kLayout, HandleMemory::kLayout, Journal::kLayout,
                        SessionMemory::kLayout, ChangeMemory::kLayout, CopyMemory::kLayout}) < 32);

sys::UniqueFd copy_of(std::span<const int> fds, std::size_t part) {
    if (fds.size() != kParts) {
        throw DamagedState("the state of a mount has " + std::to_string(kParts) +
                           " descriptors, not " + std::to_string(fds.size()));
    }
    sys::UniqueFd copy;
    if (const int error = sys::dup_cloexec(fds[part], copy); error < 0) {
        throw std::system_error(-error, std::generic_category(), "copying a state's descriptor");
    }
    return copy;
}

}  // namespace

SurvivingState::SurvivingState(std::span<const int> fds)
    : session_(copy_of(fds, 0), kLayout),
      nodes_(copy_of(fds, 1)),
      journal_(copy_of(fds, 2)),
      handles_(copy_of(fds, 3)),
      changes_(copy_of(fds, 4)),
      copies_(copy_of(fds, 5)) {
    session_.begin_generation();
}

std::uint32_t SurvivingState::layout_of(int session) {
    return SessionMemory::layout_of(session);
}

}  // namespace zc
