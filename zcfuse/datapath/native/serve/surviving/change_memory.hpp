// The changes of names and attributes under way, in memory that survives the process.
//
// A daemon may die behind such a change and before its answer. The kernel then sends the request
// again, and to make the change again would fail: the name exists by then, or is gone. So a record
// says, before the change is made, what it found: the successor compares that with the tree.
//
// A record exists only where the change could succeed: the name to be made was free, the name to
// be removed was there. It ends once the request is answered. One that ended in between is of no
// request any more; the successor keeps some of those that it finds, and the newest.
//
// Thread-safe; the lock is innermost.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "serve/nodes/identity.hpp"
#include "serve/surviving/surviving_table.hpp"

namespace zc {

struct ChangeLayout;

class ChangeMemory : public SurvivingTable<ChangeLayout> {
  public:
    static constexpr std::uint32_t kLayout = 1;
    static constexpr std::uint32_t kMost = 4096;

    // A name, and what it led to before the change; an inode number of 0: nothing.
    struct Place {
        std::uint64_t parent = 0;
        Identity before;
        std::array<char, 256> name{};  // empty: a longer one

        Place() = default;
        Place(std::uint64_t in, std::string_view called, const Identity& found) noexcept
            : parent(in), before(found) {
            if (called.size() < name.size()) {
                called.copy(name.data(), called.size());
            }
        }
    };
    struct Change {
        std::uint64_t unique = 0;  // of the request; 0: a free place
        std::uint32_t opcode = 0;
        std::uint32_t flags = 0;  // of a rename
        Place from;
        Place to;  // of a rename
    };

    // Throws std::system_error.
    ChangeMemory();
    // Takes what an earlier process left. Throws std::system_error, DamagedState.
    explicit ChangeMemory(sys::UniqueFd fd);

    // Records a change that is about to be made, unless an earlier process did for this request.
    void begin(const Change& change);
    // The request is answered.
    void end(std::uint64_t unique);
    // Finds what an earlier process recorded and did not answer.
    std::optional<Change> inherited(std::uint64_t unique) const;
    std::vector<Change> inherited() const;

  private:
    std::vector<std::uint32_t> free_;
    std::unordered_map<std::uint64_t, std::uint32_t> places_;  // by unique
    std::unordered_set<std::uint64_t> inherited_;
};

}  // namespace zc
