// What outlives a daemon: the memory that a successor takes, when this process ended at any point.
//
// A mount that shall not survive has one too, whose descriptors nobody gets. One data path uses it
// at a time. A successor takes it once the earlier process is reaped, because indexes of one
// process lie in the records of the nodes.
//
// Threads: as its parts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "serve/nodes/table.hpp"
#include "serve/surviving/change_memory.hpp"
#include "serve/surviving/copy_memory.hpp"
#include "serve/surviving/handle_memory.hpp"
#include "serve/surviving/journal.hpp"
#include "serve/surviving/session_memory.hpp"

namespace zc {

class SurvivingState {
  public:
    // Of all parts; another one means that no process of this version can take it.
    static constexpr std::uint32_t kLayout =
        NodeMemory::kLayout << 25 | HandleMemory::kLayout << 20 | Journal::kLayout << 15 |
        SessionMemory::kLayout << 10 | ChangeMemory::kLayout << 5 | CopyMemory::kLayout;

    // Throws std::system_error.
    SurvivingState() : session_(kLayout) {}
    // Takes what an earlier process left, by copies of its fds(). Throws std::system_error,
    // DamagedState.
    explicit SurvivingState(std::span<const int> fds);
    SurvivingState(const SurvivingState&) = delete;
    SurvivingState& operator=(const SurvivingState&) = delete;

    // The state's, in a fixed order and number.
    std::vector<int> fds() const {
        return {session_.fd(), nodes_.memory(), journal_.fd(),
                handles_.fd(), changes_.fd(),   copies_.fd()};
    }
    // Leaves the memory as it is now to a successor while this process goes on: what it does from
    // now on stays its own. Returns 0 or -errno.
    int detach() noexcept {
        for (const int error : {session_.detach(), nodes_.detach(), journal_.detach(),
                                handles_.detach(), changes_.detach(), copies_.detach()}) {
            if (error < 0) {
                return error;
            }
        }
        return 0;
    }
    // The layout in the first of another process's fds(). Throws as the constructor does.
    static std::uint32_t layout_of(int session);

    SessionMemory& session() noexcept { return session_; }
    NodeTable& nodes() noexcept { return nodes_; }
    Journal& journal() noexcept { return journal_; }
    HandleMemory& handles() noexcept { return handles_; }
    ChangeMemory& changes() noexcept { return changes_; }
    CopyMemory& copies() noexcept { return copies_; }

  private:
    SessionMemory session_;
    NodeTable nodes_;
    Journal journal_;
    HandleMemory handles_;
    ChangeMemory changes_;
    CopyMemory copies_;
};

}  // namespace zc
