// The files that clients have open, and the backing ids that the kernel holds for us, in memory
// that survives the process.
//
// A handle is there once its number is. One number is given out once, so that a RELEASE that comes
// a second time finds nothing. An OPEN that was counted and not answered comes again with the same
// `unique`: take() then finds its handle.
//
// A backing id lives in the connection, not in the process. The successor closes those that no
// handle needs: no other process would.
//
// Thread-safe; the lock is innermost.
#pragma once

#include <cstdint>
#include <optional>
#include <unordered_map>
#include <vector>

#include "serve/surviving/surviving_table.hpp"

namespace zc {

struct HandleLayout;

class HandleMemory : public SurvivingTable<HandleLayout> {
  public:
    static constexpr std::uint32_t kLayout = 1;
    static constexpr std::uint32_t kMost = 1 << 22;

    struct Handle {
        std::uint64_t number = 0;  // with kOwnBit; 0: free
        std::uint64_t nodeid = 0;
        std::uint64_t unique = 0;  // of the OPEN; 0: control answered it
        std::uint32_t uid = 0;
        std::int32_t backing_id = 0;  // 0: cached
        std::uint32_t writes = 0;
        std::uint32_t check = 0;
    };

    // Throws std::system_error.
    HandleMemory();
    // Takes what an earlier process left. Throws std::system_error, DamagedState.
    explicit HandleMemory(sys::UniqueFd fd);

    // Returns the number of a new handle, 0 where there are too many. Before the OPEN is answered.
    std::uint64_t open(Handle handle);
    // Returns the handle that had the number; nullopt for one that is closed.
    std::optional<Handle> close(std::uint64_t number);
    // Takes the handle of an OPEN that an earlier process counted.
    std::optional<Handle> take(std::uint64_t unique);
    std::vector<Handle> all() const;

    void register_backing(int id);
    void unregister_backing(int id) noexcept;
    // Registered and of no handle. Call it before there are leases of this process.
    std::vector<int> stray_backings() const;

  private:
    void release_slot(std::uint32_t slot) noexcept;

    std::vector<std::uint32_t> free_;
    std::unordered_map<std::uint64_t, std::uint64_t> doubtful_;  // inherited: by unique, the number
    std::vector<std::uint32_t> free_backings_;
    std::unordered_map<int, std::uint32_t> backings_;  // places by id
};

}  // namespace zc
