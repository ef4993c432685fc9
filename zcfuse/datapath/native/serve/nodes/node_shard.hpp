// A part of the table of nodes: its records in NodeMemory, found by nodeid and by identity.
//
// The indexes are chains of records. They belong to this process: a successor makes them from the
// records. Everything here is called under `lock`, and calls only the allocator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

#include "serve/nodes/node_memory.hpp"

namespace zc {

class NodeShard {
  public:
    NodeShard(const NodeMemory& memory, std::size_t number);
    NodeShard(const NodeShard&) = delete;
    NodeShard& operator=(const NodeShard&) = delete;

    // Makes the indexes of what an earlier process left, and checks it. Returns how many nodes are
    // revoked. Throws DamagedState.
    std::size_t take();

    TableNode* find(std::uint64_t nodeid) noexcept;
    TableNode* find(const Identity& identity) noexcept;
    std::uint64_t next_number() noexcept;
    // Throws std::bad_alloc.
    TableNode& add(std::uint64_t nodeid, const Identity& identity, std::uint64_t parent,
                   std::string_view name);
    void remove(TableNode& node) noexcept;
    // Gives a node another identity.
    void identify(TableNode& node, const Identity& identity) noexcept;

    // The names of a node, the newest first.
    const TableName& newest(const TableNode& node) const noexcept { return name_at(node.name); }
    const TableName* older(const TableName& name) const noexcept {
        return name.next != 0 ? &name_at(name.next) : nullptr;
    }
    // Gives it the name, unless it has it: beside the earlier ones if `several`, else instead.
    void go_by(TableNode& node, std::uint64_t parent, std::string_view name, bool several);
    // Puts a name in the newest one's place.
    void replace_newest(TableNode& node, std::uint64_t parent, std::string_view name);
    // An older name takes the newest one's place; does nothing without one.
    void lose_newest(TableNode& node) noexcept;
    void lose_older(TableNode& node, std::uint64_t parent, std::string_view name) noexcept;

    template <typename Visit>
    void each(Visit visit) const {
        for (std::uint32_t index = 1; index <= header_.records; ++index) {
            if (auto& node = at(index); node.nodeid != 0) {
                visit(node);
            }
        }
    }

    std::size_t size() const noexcept { return size_; }
    std::size_t bytes() const noexcept;  // of records, names and indexes
    // Gives memory back where most of it is free.
    void compact();

    mutable std::mutex lock;

  private:
    TableNode& at(std::uint32_t index) const noexcept { return records_[index]; }
    TableName& name_at(std::uint32_t at) const noexcept { return NodeMemory::name_in(names_, at); }
    std::uint32_t index_of(const TableNode& node) const noexcept;
    void free_names(std::uint32_t first) const noexcept;
    void cut_older(TableNode& node) const noexcept;
    void check(const TableNode& node) const;

    std::uint32_t& nodeid_bucket(std::uint64_t nodeid) noexcept;
    std::uint32_t& identity_bucket(const Identity& identity) noexcept;
    void chain(std::uint32_t index) noexcept;
    void unchain(std::uint32_t index) noexcept;
    void make_indexes(std::size_t buckets);

    const NodeMemory& memory_;
    const std::size_t number_;
    NodeMemory::Shard& header_;
    TableNode* const records_;
    std::byte* const names_;
    std::vector<std::uint32_t> by_nodeid_;  // 0: an empty bucket
    std::vector<std::uint32_t> by_identity_;
    std::size_t size_ = 0;
    std::uint32_t free_records_ = 0;
};

}  // namespace zc
