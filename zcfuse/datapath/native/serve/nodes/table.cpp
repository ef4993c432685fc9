#include "serve/nodes/table.hpp"

#include <algorithm>
#include <mutex>
#include <utility>

#include "serve/nodes/node_shard.hpp"

namespace zc {

NodeTable::NodeTable()
    : shards_(std::make_unique<std::optional<NodeShard>[]>(NodeMemory::kShards)) {
    for (std::size_t number = 0; number < NodeMemory::kShards; ++number) {
        shards_[number].emplace(memory_, number);
    }
}

NodeTable::NodeTable(sys::UniqueFd memory)
    : memory_(std::move(memory)),
      shards_(std::make_unique<std::optional<NodeShard>[]>(NodeMemory::kShards)) {
    for (std::size_t number = 0; number < NodeMemory::kShards; ++number) {
        revoked_ += static_cast<std::int64_t>(shards_[number].emplace(memory_, number).take());
    }
}

// The shards in order.
std::span<std::optional<NodeShard>> NodeTable::shards() const noexcept {
    return {shards_.get(), NodeMemory::kShards};
}

NodeTable::~NodeTable() = default;

NodeShard& NodeTable::shard_of(std::uint64_t nodeid) const noexcept {
    return *shards_[nodeid % NodeMemory::kShards];
}

NodeShard& NodeTable::shard_of(const Identity& identity) const noexcept {
    return *shards_[hash_of(identity) % NodeMemory::kShards];
}

void NodeTable::add_root(std::uint64_t nodeid, const Identity& identity) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    TableNode* node = shard.find(nodeid);
    if (node != nullptr) {
        shard.identify(*node, identity);
        revoked_ -= node->has(TableNode::revoked) ? 1 : 0;
    } else {
        node = &shard.add(nodeid, identity, 0, "");
    }
    node->set(TableNode::revoked, false);
    node->set(TableNode::root, true);
}

void NodeTable::drop_root(std::uint64_t nodeid) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    TableNode* node = shard.find(nodeid);
    if (node == nullptr || !node->has(TableNode::root)) {
        return;
    }
    revoked_ -= node->has(TableNode::revoked) ? 1 : 0;
    shard.remove(*node);
}

std::uint64_t NodeTable::count(const Identity& identity, std::uint64_t parent,
                               std::string_view name, bool several_names) {
    auto& shard = shard_of(identity);
    const std::lock_guard guard(shard.lock);
    TableNode* node = shard.find(identity);
    if (node == nullptr) {
        const auto number = hash_of(identity) % NodeMemory::kShards;
        const auto nodeid = kOwnBit | (shard.next_number() * NodeMemory::kShards + number);
        node = &shard.add(nodeid, identity, parent, name);
    } else {
        shard.go_by(*node, parent, name, several_names);
    }
    ++node->lookups;
    node->held |= Held::attributes;
    return node->nodeid;
}

NodeTable::Forgotten NodeTable::forget(std::uint64_t nodeid, std::uint64_t lookups) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    TableNode* node = shard.find(nodeid);
    if (node == nullptr || node->has(TableNode::root)) {
        return {};
    }
    const bool described = node->has(TableNode::described);
    node->lookups -= std::min(lookups, node->lookups);
    if (node->lookups > 0) {
        return {true, false, described};
    }
    // A revoked node stays, or a later lookup of its name would make one that is not revoked.
    if (node->has(TableNode::revoked)) {
        node->set(TableNode::described, false);
    } else {
        shard.remove(*node);
    }
    return {true, true, described};
}

std::optional<NodeView> NodeTable::find(std::uint64_t nodeid) const {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    const TableNode* node = shard.find(nodeid);
    if (node == nullptr) {
        return std::nullopt;
    }
    const auto& name = shard.newest(*node);
    return NodeView{node->identity(),
                    {name.parent, std::string(name.text())},
                    name.next != 0,
                    node->has(TableNode::root),
                    node->has(TableNode::revoked)};
}

void NodeTable::renamed(const Identity& identity, const Link& from, std::uint64_t parent,
                        std::string_view name) {
    auto& shard = shard_of(identity);
    const std::lock_guard guard(shard.lock);
    TableNode* node = shard.find(identity);
    if (node == nullptr || node->has(TableNode::root)) {
        return;
    }
    if (shard.newest(*node).is(from.parent, from.name)) {
        shard.replace_newest(*node, parent, name);
    } else {
        shard.lose_older(*node, from.parent, from.name);
        shard.go_by(*node, parent, name, true);
    }
}

void NodeTable::unlinked(const Identity& identity, const Link& link) {
    auto& shard = shard_of(identity);
    const std::lock_guard guard(shard.lock);
    TableNode* node = shard.find(identity);
    if (node == nullptr || node->has(TableNode::root)) {
        return;
    }
    if (shard.newest(*node).is(link.parent, link.name)) {
        shard.lose_newest(*node);
    } else {
        shard.lose_older(*node, link.parent, link.name);
    }
}

std::vector<Link> NodeTable::links(std::uint64_t nodeid) const {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    std::vector<Link> links;
    const TableNode* node = shard.find(nodeid);
    if (node == nullptr || node->has(TableNode::root)) {
        return links;
    }
    for (const auto* name = &shard.newest(*node); name != nullptr; name = shard.older(*name)) {
        links.push_back({name->parent, std::string(name->text())});
    }
    return links;
}

void NodeTable::set_described(std::uint64_t nodeid) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    if (TableNode* node = shard.find(nodeid); node != nullptr) {
        node->set(TableNode::described, true);
    }
}

bool NodeTable::unchanged(std::uint64_t nodeid, std::uint64_t first, std::uint64_t second,
                          bool trusted) {
    // Matches no real value: files are smaller, and directories were listed at other times.
    constexpr auto kNever = ~std::uint64_t{0};
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    TableNode* node = shard.find(nodeid);
    if (node == nullptr) {
        return false;
    }
    const bool same = node->seen_first == first && node->seen_second == second;
    if (!same || !trusted) {
        publish(node->seen_second, kNever);  // until both are there
        publish(node->seen_first, trusted ? first : kNever);
        publish(node->seen_second, trusted ? second : kNever);
    }
    return same;
}

bool NodeTable::set_revoked(std::uint64_t nodeid, bool revoked) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    TableNode* node = shard.find(nodeid);
    if (node == nullptr) {
        return false;
    }
    revoked_ += static_cast<int>(revoked) - static_cast<int>(node->has(TableNode::revoked));
    node->set(TableNode::revoked, revoked);
    return true;
}

bool NodeTable::is_revoked(const Identity& identity) const {
    auto& shard = shard_of(identity);
    const std::lock_guard guard(shard.lock);
    const TableNode* node = shard.find(identity);
    return node != nullptr && node->has(TableNode::revoked);
}

bool NodeTable::hold(std::uint64_t nodeid, Held what) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    TableNode* node = shard.find(nodeid);
    if (node == nullptr || (node->held & what) == what) {
        return false;
    }
    node->held = static_cast<std::uint8_t>(node->held | what);
    return true;
}

unsigned NodeTable::take_held(std::uint64_t nodeid) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    TableNode* node = shard.find(nodeid);
    if (node == nullptr) {
        return 0;
    }
    const unsigned held = node->held;
    node->held &= Held::pages;
    return held;
}

std::uint64_t NodeTable::nodeid_of(const Identity& identity) const {
    auto& shard = shard_of(identity);
    const std::lock_guard guard(shard.lock);
    const TableNode* node = shard.find(identity);
    return node != nullptr ? node->nodeid : 0;
}

std::vector<std::uint64_t> NodeTable::all() const {
    std::vector<std::uint64_t> nodeids;
    for (auto& shard : shards()) {
        const std::lock_guard guard(shard->lock);
        shard->each([&](const TableNode& node) { nodeids.push_back(node.nodeid); });
    }
    return nodeids;
}

std::vector<std::string> NodeTable::names_in(std::uint64_t parent) const {
    std::vector<std::string> names;
    for (auto& shard : shards()) {
        const std::lock_guard guard(shard->lock);
        shard->each([&](const TableNode& node) {
            if (const auto& name = shard->newest(node); name.parent == parent) {
                names.emplace_back(name.text());
            }
        });
    }
    return names;
}

std::size_t NodeTable::size() const {
    std::size_t size = 0;
    for (auto& shard : shards()) {
        const std::lock_guard guard(shard->lock);
        size += shard->size();
    }
    return size;
}

std::size_t NodeTable::bytes() const {
    std::size_t bytes = 0;
    for (auto& shard : shards()) {
        const std::lock_guard guard(shard->lock);
        bytes += shard->bytes();
    }
    return bytes;
}

void NodeTable::compact() {
    for (auto& shard : shards()) {
        const std::lock_guard guard(shard->lock);
        shard->compact();
    }
}

}  // namespace zc
