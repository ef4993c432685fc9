#include "serve/nodes/pool_permits.hpp"

#include <memory>
#include <utility>

#include "serve/nodes/leased_nodes.hpp"

namespace zc {

namespace {

struct InPool {
    std::shared_ptr<const PoolSource> pool;  // nullptr without one
    Identity directory;
};

InPool pool_at(const LeasedNodes& nodes, std::uint64_t nodeid) {
    const auto node = nodes.nodes().find(nodeid);
    const auto root = nodes.root_above(nodeid);
    if (!node || !root) {
        return {};
    }
    auto directory = node->identity;
    directory.lease -= root->number;
    return {std::dynamic_pointer_cast<const PoolSource>(root->source), directory};
}

}  // namespace

bool permit(const LeasedNodes& nodes, std::uint64_t nodeid, PoolSource::Change change,
            std::optional<std::string> name, std::optional<Placements::Milliseconds> valid) {
    if (change == PoolSource::Change::write) {
        const auto file = nodes.nodes().find(nodeid);
        if (!file) {
            return false;
        }
        nodeid = file->link.parent;
        name = name ? std::optional(file->link.name) : std::nullopt;
    }
    const auto [pool, directory] = pool_at(nodes, nodeid);
    if (pool != nullptr) {
        pool->permit(directory, change, name, valid);
    }
    return pool != nullptr;
}

int refused_in_pool(const LeasedNodes& nodes, std::uint64_t nodeid) {
    const auto file = nodes.nodes().find(nodeid);
    if (!file) {
        return 0;
    }
    const auto [pool, directory] = pool_at(nodes, file->link.parent);
    return pool == nullptr ? 0
                           : pool->refused(directory, PoolSource::Change::write, file->link.name);
}

}  // namespace zc
