#include "serve/nodes/node_shard.hpp"

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "serve/constants.hpp"

namespace zc {

namespace {

constexpr std::size_t kFirstBuckets = 16;
constexpr std::size_t kOtherNames = 4;           // kept beside the newest
constexpr std::uint32_t kWorthCompacting = 256;  // records

}  // namespace

NodeShard::NodeShard(const NodeMemory& memory, std::size_t number)
    : memory_(memory),
      number_(number),
      header_(memory.shard(number)),
      records_(memory.records(number)),
      names_(memory.names(number)),
      by_nodeid_(kFirstBuckets),
      by_identity_(kFirstBuckets) {}

std::uint32_t NodeShard::index_of(const TableNode& node) const noexcept {
    return static_cast<std::uint32_t>(&node - &at(0));
}

std::uint32_t& NodeShard::nodeid_bucket(std::uint64_t nodeid) noexcept {
    return by_nodeid_[mixed(nodeid) & (by_nodeid_.size() - 1)];
}

std::uint32_t& NodeShard::identity_bucket(const Identity& identity) noexcept {
    return by_identity_[(hash_of(identity) >> 6) & (by_identity_.size() - 1)];
}

TableNode* NodeShard::find(std::uint64_t nodeid) noexcept {
    auto index = nodeid_bucket(nodeid);
    while (index != 0 && at(index).nodeid != nodeid) {
        index = at(index).next_by_nodeid;
    }
    return index != 0 ? &at(index) : nullptr;
}

TableNode* NodeShard::find(const Identity& identity) noexcept {
    auto index = identity_bucket(identity);
    while (index != 0 && at(index).identity() != identity) {
        index = at(index).next_by_identity;
    }
    return index != 0 ? &at(index) : nullptr;
}

void NodeShard::chain(std::uint32_t index) noexcept {
    auto& node = at(index);
    node.next_by_nodeid = std::exchange(nodeid_bucket(node.nodeid), index);
    node.next_by_identity = std::exchange(identity_bucket(node.identity()), index);
}

void NodeShard::unchain(std::uint32_t index) noexcept {
    auto* place = &nodeid_bucket(at(index).nodeid);
    while (*place != index) {
        place = &at(*place).next_by_nodeid;
    }
    *place = at(index).next_by_nodeid;
    place = &identity_bucket(at(index).identity());
    while (*place != index) {
        place = &at(*place).next_by_identity;
    }
    *place = at(index).next_by_identity;
}

void NodeShard::make_indexes(std::size_t buckets) {
    std::vector<std::uint32_t> nodeids(buckets);
    std::vector<std::uint32_t> identities(buckets);
    by_nodeid_.swap(nodeids);
    by_identity_.swap(identities);
    each([&](TableNode& node) { chain(index_of(node)); });
}

std::size_t NodeShard::take() {
    memory_.verify(number_);
    std::size_t live = 0;
    std::size_t revoked = 0;
    each([&](TableNode& node) {
        check(node);
        ++live;
    });
    const auto buckets = std::max(kFirstBuckets, std::bit_ceil(live));
    by_nodeid_.assign(buckets, 0);
    by_identity_.assign(buckets, 0);
    for (auto index = header_.records; index > 0; --index) {
        auto& node = at(index);
        if (const auto* twin = node.nodeid != 0 ? find(node.nodeid) : nullptr; twin != nullptr) {
            if (twin->identity() != node.identity()) {
                NodeMemory::damaged("two nodes have one nodeid");
            }
            publish(node.nodeid, std::uint64_t{0});  // was being moved
        }
        if (node.nodeid == 0) {
            node.next_by_nodeid = std::exchange(free_records_, index);
            continue;
        }
        chain(index);
        ++size_;
        revoked += node.has(TableNode::revoked) ? 1 : 0;
    }
    if (header_.units[1 - header_.stripe] != 0) {
        memory_.move_names(number_);
    }
    return revoked;
}

void NodeShard::check(const TableNode& node) const {
    TableNode sound = node;
    sound.identify(node.nodeid, node.identity());
    const bool own = (node.nodeid & kOwnBit) != 0;
    bool good =
        sound.check == node.check && node.nodeid % NodeMemory::kShards == number_ && node.name != 0;
    if (own) {
        const auto number = (node.nodeid & ~kOwnBit) / NodeMemory::kShards;
        good = good && hash_of(node.identity()) % NodeMemory::kShards == number_ &&
               number <= header_.last_number;
    }
    std::size_t names = 0;
    for (auto name = node.name; good && name != 0; name = name_at(name).next) {
        good = memory_.is_name(number_, name) && ++names <= kOtherNames + 2;
    }
    if (!good) {
        NodeMemory::damaged("node " + std::to_string(node.nodeid));
    }
}

std::uint64_t NodeShard::next_number() noexcept {
    publish(header_.last_number, header_.last_number + 1);
    return header_.last_number;
}

TableNode& NodeShard::add(std::uint64_t nodeid, const Identity& identity, std::uint64_t parent,
                          std::string_view name) {
    if (size_ >= by_nodeid_.size()) {
        make_indexes(by_nodeid_.size() * 2);
    }
    const auto first_name = memory_.new_name(number_, parent, name, 0);
    const auto index = memory_.new_record(number_, free_records_);
    auto& node = at(index);
    node = TableNode{};
    node.name = first_name;
    node.identify(nodeid, identity);
    publish(node.nodeid, nodeid);
    chain(index);
    ++size_;
    return node;
}

void NodeShard::remove(TableNode& node) noexcept {
    const auto index = index_of(node);
    unchain(index);
    publish(node.nodeid, std::uint64_t{0});
    free_names(std::exchange(node.name, 0));
    node.next_by_nodeid = std::exchange(free_records_, index);
    --size_;
}

void NodeShard::identify(TableNode& node, const Identity& identity) noexcept {
    if (node.identity() == identity) {
        return;
    }
    const auto index = index_of(node);
    const auto nodeid = node.nodeid;
    unchain(index);
    publish(node.nodeid, std::uint64_t{0});
    node.identify(nodeid, identity);
    publish(node.nodeid, nodeid);
    chain(index);
}

void NodeShard::free_names(std::uint32_t first) const noexcept {
    while (first != 0) {
        const auto next = name_at(first).next;
        memory_.free_name(number_, first);
        first = next;
    }
}

void NodeShard::cut_older(TableNode& node) const noexcept {
    auto* at = &node.name;
    for (std::size_t kept = 0; *at != 0 && kept <= kOtherNames; ++kept) {
        at = &name_at(*at).next;
    }
    const auto rest = *at;
    publish(*at, std::uint32_t{0});
    free_names(rest);
}

void NodeShard::go_by(TableNode& node, std::uint64_t parent, std::string_view name, bool several) {
    if (newest(node).is(parent, name)) {
        return;
    }
    const auto before = node.name;
    publish(node.name, memory_.new_name(number_, parent, name, several ? before : 0));
    if (!several) {
        free_names(before);
        return;
    }
    lose_older(node, parent, name);
    cut_older(node);
}

void NodeShard::replace_newest(TableNode& node, std::uint64_t parent, std::string_view name) {
    const auto before = node.name;
    publish(node.name, memory_.new_name(number_, parent, name, newest(node).next));
    memory_.free_name(number_, before);
}

void NodeShard::lose_newest(TableNode& node) noexcept {
    const auto before = node.name;
    if (newest(node).next != 0) {
        publish(node.name, newest(node).next);
        memory_.free_name(number_, before);
    }
}

void NodeShard::lose_older(TableNode& node, std::uint64_t parent, std::string_view name) noexcept {
    auto* at = &name_at(node.name).next;
    while (*at != 0) {
        const auto here = *at;
        auto& older = name_at(here);
        if (older.is(parent, name)) {
            publish(*at, older.next);
            memory_.free_name(number_, here);
        } else {
            at = &older.next;
        }
    }
}

std::size_t NodeShard::bytes() const noexcept {
    return sizeof(NodeMemory::Shard) + sizeof(TableNode) * header_.records +
           NodeMemory::kUnit * (header_.units[0] + header_.units[1]) +
           sizeof(std::uint32_t) * (by_nodeid_.capacity() + by_identity_.capacity());
}

void NodeShard::compact() {
    if (header_.records < kWorthCompacting || size_ > header_.records / 2) {
        return;
    }
    memory_.move_names(number_);
    std::uint32_t to = 1;
    for (auto from = header_.records; from > size_; --from) {
        auto& last = at(from);
        if (last.nodeid == 0) {
            continue;
        }
        while (at(to).nodeid != 0) {
            ++to;
        }
        auto copy = last;
        copy.nodeid = 0;
        at(to) = copy;
        publish(at(to).nodeid, last.nodeid);
        publish(last.nodeid, std::uint64_t{0});
    }
    publish(header_.records, static_cast<std::uint32_t>(size_));
    free_records_ = 0;
    memory_.release_records(number_);
    make_indexes(std::max(kFirstBuckets, std::bit_ceil(size_)));
}

}  // namespace zc
