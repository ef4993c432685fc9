// The nodes below leased directories. A node holds the kernel's nodeid, the file's identity, the
// names that lookups used, and the number of lookups that the kernel has yet to forget.
//
// Identity is (lease, inode number, time of birth, type), so that a reused inode number is a new
// node and hard links share one. Where a filesystem has no times of birth, a hash of the file
// handle, which holds the inode's generation, stands in for it. A nodeid is never used twice, so
// that generations can stay 0; ours have kOwnBit set and control's have not, so that either plane
// may make one without asking the other. A node keeps no descriptor.
//
// The nodes lie in memory that a successor of this process may take (node_memory.hpp). Whoever
// wants none gives none away: it is the same code.
//
// Threads: any. Nodes lie in shards, and each shard has its lock. The table chooses a nodeid so
// that it and the identity lead to the same shard: an operation needs one lock. A thread that holds
// a lock calls only the allocator.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "serve/constants.hpp"
#include "serve/nodes/identity.hpp"
#include "serve/nodes/node_memory.hpp"
#include "sys/unique_fd.hpp"

namespace zc {

// Of node ids and file handles.
inline constexpr bool is_own(std::uint64_t number) noexcept {
    return (number & kOwnBit) != 0;
}

struct Link {
    std::uint64_t parent = 0;
    std::string name;
};

struct NodeView {
    Identity identity;
    Link link;  // the last name that found it; empty for a leased directory itself
    bool more_links = false;
    bool is_root = false;
    bool revoked = false;
};

class NodeShard;

class NodeTable {
  public:
    // An empty one. Throws std::system_error.
    NodeTable();
    // Goes on with what an earlier process left in its memory(), and checks each node. Throws
    // std::system_error, DamagedState.
    explicit NodeTable(sys::UniqueFd memory);
    NodeTable(const NodeTable&) = delete;
    NodeTable& operator=(const NodeTable&) = delete;
    ~NodeTable();

    // The directory that a lease begins at, under control's nodeid; it outlives every FORGET.
    void add_root(std::uint64_t nodeid, const Identity& identity);
    void drop_root(std::uint64_t nodeid);

    // Counts one lookup and returns the nodeid, to be called before the reply is written: the
    // kernel may forget the node as soon as it has read that. `several_names`: the file may have
    // other links, so that an earlier name is kept beside this one.
    std::uint64_t count(const Identity& identity, std::uint64_t parent, std::string_view name,
                        bool several_names);
    struct Forgotten {
        bool known = false;
        bool gone = false;
        bool described = false;  // control knows the node and wants to hear of its end
    };
    Forgotten forget(std::uint64_t nodeid, std::uint64_t lookups);

    std::optional<NodeView> find(std::uint64_t nodeid) const;
    // A name of a node has become another, or is gone: of one that has others the newest of those
    // stands in for it.
    void renamed(const Identity& identity, const Link& from, std::uint64_t parent,
                 std::string_view name);
    void unlinked(const Identity& identity, const Link& link);
    // All names known, the newest first.
    std::vector<Link> links(std::uint64_t nodeid) const;
    void set_described(std::uint64_t nodeid);

    // Notes what an open saw and returns whether the one before saw the same. `trusted` false:
    // whatever the next one sees is not the same.
    bool unchanged(std::uint64_t nodeid, std::uint64_t first, std::uint64_t second, bool trusted);

    // Marks a node as no longer leased, or as leased again. Returns false for an unknown one. A
    // marked node stays in the table.
    bool set_revoked(std::uint64_t nodeid, bool revoked);
    // Whether any node is marked: a walk up to the root is only needed then.
    bool any_revoked() const noexcept { return revoked_.load(std::memory_order_acquire) > 0; }
    bool is_revoked(const Identity& identity) const;

    // The kernel may have cached these of a node since the last push. `pages` stays set, because
    // the kernel reads pages without asking the table.
    enum Held : std::uint8_t { attributes = 1, pages = 2 };
    // To be called before the node is looked at, so that a change from then on finds it held.
    // count() holds the attributes. Returns whether the node was not held so before.
    bool hold(std::uint64_t nodeid, Held what);
    // Returns what is held, Held bits, and takes the attributes' bit away.
    unsigned take_held(std::uint64_t nodeid);
    // The nodeid of an identity, 0 where the kernel knows none.
    std::uint64_t nodeid_of(const Identity& identity) const;
    std::vector<std::uint64_t> all() const;
    // The names that were found in a directory; looks at every node, a shard at a time.
    std::vector<std::string> names_in(std::uint64_t parent) const;

    std::size_t size() const;
    std::size_t bytes() const;  // of nodes, names and indexes
    // Gives memory back where most nodes are gone.
    void compact();
    // The descriptor of the memory, for a successor; the table's.
    int memory() const noexcept { return memory_.fd(); }
    int detach() noexcept { return memory_.detach(); }

  private:
    std::span<std::optional<NodeShard>> shards() const noexcept;
    NodeShard& shard_of(std::uint64_t nodeid) const noexcept;
    NodeShard& shard_of(const Identity& identity) const noexcept;

    NodeMemory memory_;
    std::unique_ptr<std::optional<NodeShard>[]> shards_;
    std::atomic<std::int64_t> revoked_{0};
};

}  // namespace zc
