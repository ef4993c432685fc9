#include "serve/nodes/table.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace zc {

namespace {

constexpr std::size_t kFirstBuckets = 16;
constexpr std::size_t kOtherLinks = 4;  // kept beside the newest

std::uint64_t mixed(std::uint64_t value) noexcept {
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
    value = (value ^ value >> 27) * 0x94D049BB133111EB;
    return value ^ value >> 31;
}

std::uint64_t hash_of(const Identity& identity) noexcept {
    const auto lease = std::uint64_t{identity.lease} << 32 | identity.type;
    return mixed(identity.ino * 0x9E3779B97F4A7C15 ^ mixed(identity.birth ^ lease));
}

std::unique_ptr<char[]> copy_of(std::string_view name) {
    auto copy = std::make_unique_for_overwrite<char[]>(name.size() + 1);
    std::memcpy(copy.get(), name.data(), name.size());
    copy[name.size()] = '\0';
    return copy;
}

}  // namespace

// There may be millions: fields are ordered so that none is wasted, the indexes are chains through
// the nodes themselves, and what few nodes need lies behind a pointer.
struct NodeTable::Node {
    std::uint64_t nodeid = 0;
    Identity identity;
    std::uint64_t lookups = 0;
    std::uint64_t parent = 0;
    std::unique_ptr<char[]> name;
    std::unique_ptr<std::vector<Link>> others;
    std::uint64_t seen_first = 0;
    std::uint64_t seen_second = 0;
    Node* next_by_nodeid = nullptr;
    Node* next_by_identity = nullptr;
    bool is_root = false;
    bool revoked = false;
    bool described = false;
    std::uint8_t held = 0;

    void go_by(std::uint64_t new_parent, std::string_view new_name, bool several) {
        if (parent == new_parent && new_name == name.get()) {
            return;
        }
        if (several) {
            keep_other(new_parent, new_name);
        } else {
            others.reset();
        }
        parent = new_parent;
        name = copy_of(new_name);
    }

    bool goes_by(const Link& link) const noexcept {
        return parent == link.parent && link.name == name.get();
    }

    void lose_other(const Link& gone) {
        if (others) {
            std::erase_if(*others, [&](const Link& link) {
                return link.parent == gone.parent && link.name == gone.name;
            });
        }
    }

    void promote_other() {
        if (others && !others->empty()) {
            parent = others->front().parent;
            name = copy_of(others->front().name);
            others->erase(others->begin());
        }
    }

    void keep_other(std::uint64_t new_parent, std::string_view new_name) {
        if (!others) {
            others = std::make_unique<std::vector<Link>>();
        }
        std::erase_if(*others, [&](const Link& link) {
            return link.parent == new_parent && link.name == new_name;
        });
        others->insert(others->begin(), Link{parent, name.get()});
        if (others->size() > kOtherLinks) {
            others->pop_back();
        }
    }
};

struct NodeTable::Shard {
    mutable std::mutex lock;
    std::vector<Node*> by_nodeid = std::vector<Node*>(kFirstBuckets);
    std::vector<Node*> by_identity = std::vector<Node*>(kFirstBuckets);
    std::size_t size = 0;
    std::uint64_t last_number = 0;

    Node*& nodeid_bucket(std::uint64_t nodeid) noexcept {
        return by_nodeid[mixed(nodeid) & (by_nodeid.size() - 1)];
    }
    Node*& identity_bucket(const Identity& identity) noexcept {
        return by_identity[(hash_of(identity) >> 6) & (by_identity.size() - 1)];
    }
    Node* find(std::uint64_t nodeid) noexcept {
        Node* node = nodeid_bucket(nodeid);
        while (node != nullptr && node->nodeid != nodeid) {
            node = node->next_by_nodeid;
        }
        return node;
    }
    Node* find(const Identity& identity) noexcept {
        Node* node = identity_bucket(identity);
        while (node != nullptr && node->identity != identity) {
            node = node->next_by_identity;
        }
        return node;
    }
    void put(Node* node) {
        if (size >= by_nodeid.size()) {
            grow();
        }
        chain(node);
        ++size;
    }
    void chain(Node* node) noexcept {
        node->next_by_nodeid = std::exchange(nodeid_bucket(node->nodeid), node);
        node->next_by_identity = std::exchange(identity_bucket(node->identity), node);
    }
    void grow() {
        std::vector<Node*> wider(by_nodeid.size() * 2);
        std::vector<Node*> also(wider.size());
        auto old = std::exchange(by_nodeid, std::move(wider));
        by_identity.swap(also);
        for (Node* node : old) {
            while (node != nullptr) {
                Node* next = node->next_by_nodeid;
                chain(node);
                node = next;
            }
        }
    }
    void take(Node* node) noexcept {
        Node** at = &nodeid_bucket(node->nodeid);
        while (*at != node) {
            at = &(*at)->next_by_nodeid;
        }
        *at = node->next_by_nodeid;
        at = &identity_bucket(node->identity);
        while (*at != node) {
            at = &(*at)->next_by_identity;
        }
        *at = node->next_by_identity;
        --size;
    }
};

NodeTable::NodeTable() : shards_(std::make_unique<Shard[]>(kShards)) {}

NodeTable::~NodeTable() {
    for (std::size_t i = 0; i < kShards; ++i) {
        for (Node* node : shards_[i].by_nodeid) {
            while (node != nullptr) {
                delete std::exchange(node, node->next_by_nodeid);
            }
        }
    }
}

NodeTable::Shard& NodeTable::shard_of(std::uint64_t nodeid) const noexcept {
    return shards_[nodeid % kShards];
}

void NodeTable::add_root(std::uint64_t nodeid, const Identity& identity) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    Node* node = shard.find(nodeid);
    if (node != nullptr) {
        shard.take(node);
        revoked_ -= std::exchange(node->revoked, false) ? 1 : 0;
    } else {
        node = new Node;
        node->nodeid = nodeid;
        node->name = copy_of("");
    }
    node->identity = identity;
    node->is_root = true;
    shard.put(node);
}

void NodeTable::drop_root(std::uint64_t nodeid) {
    auto& shard = shard_of(nodeid);
    std::unique_ptr<Node> gone;  // freed outside of the lock
    const std::lock_guard guard(shard.lock);
    Node* node = shard.find(nodeid);
    if (node == nullptr || !node->is_root) {
        return;
    }
    revoked_ -= node->revoked ? 1 : 0;
    shard.take(node);
    gone.reset(node);
}

std::uint64_t NodeTable::count(const Identity& identity, std::uint64_t parent,
                               std::string_view name, bool several_names) {
    const auto number = hash_of(identity) % kShards;
    auto& shard = shards_[number];
    const std::lock_guard guard(shard.lock);
    Node* node = shard.find(identity);
    if (node == nullptr) {
        auto made = std::make_unique<Node>();
        made->nodeid = kOwnBit | ++shard.last_number * kShards | number;
        made->identity = identity;
        made->parent = parent;
        made->name = copy_of(name);
        shard.put(made.get());
        node = made.release();
    } else {
        node->go_by(parent, name, several_names);
    }
    ++node->lookups;
    node->held |= Held::attributes;
    return node->nodeid;
}

NodeTable::Forgotten NodeTable::forget(std::uint64_t nodeid, std::uint64_t lookups) {
    auto& shard = shard_of(nodeid);
    std::unique_ptr<Node> gone;  // freed outside of the lock
    const std::lock_guard guard(shard.lock);
    Node* node = shard.find(nodeid);
    if (node == nullptr || node->is_root) {
        return {};
    }
    node->lookups -= std::min(lookups, node->lookups);
    if (node->lookups > 0) {
        return {true, false, node->described};
    }
    // A revoked node stays, or a later lookup of its name would make one that is not revoked.
    const bool described = std::exchange(node->described, false);
    if (!node->revoked) {
        shard.take(node);
        gone.reset(node);
    }
    return {true, true, described};
}

std::optional<NodeView> NodeTable::find(std::uint64_t nodeid) const {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    const Node* node = shard.find(nodeid);
    if (node == nullptr) {
        return std::nullopt;
    }
    return NodeView{node->identity,
                    {node->parent, node->name.get()},
                    node->others != nullptr,
                    node->is_root,
                    node->revoked};
}

void NodeTable::renamed(const Identity& identity, const Link& from, std::uint64_t parent,
                        std::string_view name) {
    auto& shard = shards_[hash_of(identity) % kShards];
    const std::lock_guard guard(shard.lock);
    Node* node = shard.find(identity);
    if (node == nullptr || node->is_root) {
        return;
    }
    if (node->goes_by(from)) {
        node->parent = parent;
        node->name = copy_of(name);
    } else {
        node->lose_other(from);
        node->go_by(parent, name, true);
    }
}

void NodeTable::unlinked(const Identity& identity, const Link& link) {
    auto& shard = shards_[hash_of(identity) % kShards];
    const std::lock_guard guard(shard.lock);
    Node* node = shard.find(identity);
    if (node == nullptr || node->is_root) {
        return;
    }
    if (node->goes_by(link)) {
        node->promote_other();
    } else {
        node->lose_other(link);
    }
}

std::vector<Link> NodeTable::links(std::uint64_t nodeid) const {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    std::vector<Link> links;
    if (const Node* node = shard.find(nodeid); node != nullptr && !node->is_root) {
        links.push_back({node->parent, node->name.get()});
        if (node->others) {
            links.insert(links.end(), node->others->begin(), node->others->end());
        }
    }
    return links;
}

void NodeTable::set_described(std::uint64_t nodeid) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    if (Node* node = shard.find(nodeid); node != nullptr) {
        node->described = true;
    }
}

bool NodeTable::unchanged(std::uint64_t nodeid, std::uint64_t first, std::uint64_t second,
                          bool trusted) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    Node* node = shard.find(nodeid);
    if (node == nullptr) {
        return false;
    }
    const bool same = node->seen_first == first && node->seen_second == second;
    // Matches no real value: files are smaller, and directories were listed at other times.
    node->seen_first = trusted ? first : ~std::uint64_t{0};
    node->seen_second = trusted ? second : ~std::uint64_t{0};
    return same;
}

bool NodeTable::set_revoked(std::uint64_t nodeid, bool revoked) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    Node* node = shard.find(nodeid);
    if (node == nullptr) {
        return false;
    }
    revoked_ += static_cast<int>(revoked) - static_cast<int>(node->revoked);
    node->revoked = revoked;
    return true;
}

bool NodeTable::is_revoked(const Identity& identity) const {
    auto& shard = shards_[hash_of(identity) % kShards];
    const std::lock_guard guard(shard.lock);
    const Node* node = shard.find(identity);
    return node != nullptr && node->revoked;
}

void NodeTable::hold(std::uint64_t nodeid, Held what) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    if (Node* node = shard.find(nodeid); node != nullptr) {
        node->held = static_cast<std::uint8_t>(node->held | what);
    }
}

unsigned NodeTable::take_held(std::uint64_t nodeid) {
    auto& shard = shard_of(nodeid);
    const std::lock_guard guard(shard.lock);
    Node* node = shard.find(nodeid);
    if (node == nullptr) {
        return 0;
    }
    const unsigned held = node->held;
    node->held &= Held::pages;
    return held;
}

std::uint64_t NodeTable::nodeid_of(const Identity& identity) const {
    auto& shard = shards_[hash_of(identity) % kShards];
    const std::lock_guard guard(shard.lock);
    if (const Node* node = shard.find(identity); node != nullptr) {
        return node->nodeid;
    }
    return 0;
}

std::vector<std::uint64_t> NodeTable::all() const {
    std::vector<std::uint64_t> nodeids;
    for (std::size_t i = 0; i < kShards; ++i) {
        const std::lock_guard guard(shards_[i].lock);
        for (const Node* node : shards_[i].by_nodeid) {
            for (; node != nullptr; node = node->next_by_nodeid) {
                nodeids.push_back(node->nodeid);
            }
        }
    }
    return nodeids;
}

std::vector<std::string> NodeTable::names_in(std::uint64_t parent) const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < kShards; ++i) {
        const std::lock_guard guard(shards_[i].lock);
        for (const Node* node : shards_[i].by_nodeid) {
            for (; node != nullptr; node = node->next_by_nodeid) {
                if (node->parent == parent) {
                    names.emplace_back(node->name.get());
                }
            }
        }
    }
    return names;
}

std::size_t NodeTable::size() const {
    std::size_t size = 0;
    for (std::size_t i = 0; i < kShards; ++i) {
        const std::lock_guard guard(shards_[i].lock);
        size += shards_[i].size;
    }
    return size;
}

std::size_t NodeTable::bytes() const {
    std::size_t bytes = kShards * sizeof(Shard);
    for (std::size_t i = 0; i < kShards; ++i) {
        const std::lock_guard guard(shards_[i].lock);
        bytes +=
            shards_[i].size * sizeof(Node) + 2 * shards_[i].by_nodeid.capacity() * sizeof(Node*);
    }
    return bytes;
}

}  // namespace zc
