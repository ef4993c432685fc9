// The copies that clients' changes made in a union's upper layer, in memory that survives the
// process.
//
// The kernel knows the file of a lower layer as a node, and its copy is another file. A successor
// finds here which copy stands for a node, and the inode number that clients see of it. A record is
// there before the copy has its name: while it is not settled, the tree says whether it has one.
//
// The latest kMost - 1 copies count. A node whose copy is older than that gets ESTALE from a
// successor, on which the kernel looks its path up; its inode number is that of the copy.
//
// Thread-safe; the lock is innermost.
#pragma once

#include <cstdint>
#include <vector>

#include "serve/nodes/identity.hpp"
#include "serve/surviving/surviving_table.hpp"

namespace zc {

struct CopyLayout;

class CopyMemory : public SurvivingTable<CopyLayout> {
  public:
    static constexpr std::uint32_t kLayout = 1;
    static constexpr std::uint32_t kMost = 1 << 18;

    // Identities are as the union has them.
    struct Copy {
        Identity before;
        Identity after;
        std::int64_t birth = 0;    // of the copy, in nanoseconds
        std::uint64_t number = 0;  // of the file that it is a copy of; 0: it shows its own
    };
    enum class State : std::uint32_t { begun = 1, settled, dropped };
    struct Record {
        std::uint64_t sequence = 0;  // from 1; names the record
        Copy copy;
        State state = State::begun;
        std::uint64_t nodeid = 0;  // that the kernel knew the file by, once it is settled; 0: none
    };

    // Throws std::system_error.
    CopyMemory();
    // Takes what an earlier process left. Throws std::system_error, DamagedState.
    explicit CopyMemory(sys::UniqueFd fd);

    // Records a copy that is about to get its name. Returns the record's sequence.
    std::uint64_t begin(const Copy& copy);
    // The copy has its name, and is known to stand for a node.
    void settle(std::uint64_t sequence, std::uint64_t nodeid);
    // The copy got no name.
    void drop(std::uint64_t sequence);
    // Those that are not dropped, the oldest first.
    std::vector<Record> all() const;

  private:
    struct Stored;
    friend CopyLayout;
    Stored* find(std::uint64_t sequence) const noexcept;
};

}  // namespace zc
