// The part of LeasedNodes that knows which directories are leased, and what of whom a node is.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "serve/nodes/leased_nodes.hpp"
#include "serve/sources/pool.hpp"
#include "sys/syscalls.hpp"

namespace zc {

void LeasedNodes::lease(std::uint64_t nodeid, std::shared_ptr<const Source> source,
                        std::set<std::string, std::less<>> kept) {
    if (is_own(nodeid)) {
        nodes_.set_revoked(nodeid, false);
        return;
    }
    Found found;
    if (const int error = source->root()->find("", found); error != 0) {
        throw std::system_error(error < 0 ? -error : EINVAL, std::generic_category(),
                                "leasing a directory");
    }
    auto root = std::make_shared<LeaseRoot>();
    root->number = session_.number_of({nodeid, source->content(), 0, source->layers(),
                                       static_cast<std::uint32_t>(source->kind())});
    root->nodeid = nodeid;
    root->source = std::move(source);
    root->kept = std::move(kept);
    found.identity.lease += root->number;
    users_->directory_takes(root->source->descriptors());
    if (root->source->descriptors() > 1) {
        cache_.limit(std::max(cache_.capacity() / root->source->descriptors(), kLeastDescriptors));
    }
    if (root->source->kind() == Source::Kind::overlay) {
        any_overlays_.store(true, std::memory_order_release);
    }
    if (!root->source->is_near()) {
        any_far_.store(true, std::memory_order_release);
    }
    if (root->source->kind() != Source::Kind::index) {
        any_disk_.store(true, std::memory_order_release);
    }
    std::shared_ptr<const LeaseRoot> dropped = root;  // destroyed outside of the lock
    {
        const std::unique_lock guard(roots_lock_);
        roots_[nodeid].swap(dropped);
    }
    cache_.drop(nodeid);
    nodes_.add_root(nodeid, found.identity);
    note_name_change();  // an open listing has the names of the former source
    any_.store(true, std::memory_order_release);
}

void LeasedNodes::drop(std::uint64_t nodeid) {
    std::shared_ptr<const LeaseRoot> dropped;  // its descriptor is closed outside of the lock
    {
        const std::unique_lock guard(roots_lock_);
        const auto found = roots_.find(nodeid);
        if (found == roots_.end()) {
            return;
        }
        dropped = std::move(found->second);
        roots_.erase(found);
    }
    nodes_.drop_root(nodeid);
    session_.drop_root(nodeid);
    // Directories below it hold the root by pointer.
    cache_.clear();
}

std::shared_ptr<const LeaseRoot> LeasedNodes::root_of(std::uint64_t nodeid) const {
    const std::shared_lock guard(roots_lock_);
    const auto found = roots_.find(nodeid);
    return found == roots_.end() ? nullptr : found->second;
}

std::shared_ptr<const LeaseRoot> LeasedNodes::root_above(std::uint64_t nodeid) const {
    const auto node = nodes_.find(nodeid);
    const std::shared_lock guard(roots_lock_);
    for (const auto& [top, root] : roots_) {
        if (node && node->identity.lease - root->number < root->source->layers()) {
            return root;
        }
    }
    return nullptr;
}

bool LeasedNodes::names_files(const LeaseRoot& root) noexcept {
    return root.source->kind() == Source::Kind::index &&
           root.source->freshness() == Freshness::timed;
}

bool LeasedNodes::any_names_files() const {
    const std::shared_lock guard(roots_lock_);
    return std::any_of(roots_.begin(), roots_.end(),
                       [](const auto& one) { return names_files(*one.second); });
}

bool LeasedNodes::place(std::uint64_t nodeid, Placed placed) {
    const auto node = nodes_.find(nodeid);
    const auto root = root_above(nodeid);
    const auto* pool = root ? dynamic_cast<const PoolSource*>(root->source.get()) : nullptr;
    if (!node || pool == nullptr) {
        return false;
    }
    cache_.clear();  // what is open may lack a part that control has just made
    auto directory = node->identity;
    directory.lease -= root->number;
    if (placed.name) {
        pool->placements().decide(directory, std::move(*placed.name), placed.branch);
    } else {
        pool->placements().lease(directory, placed.branch, placed.valid_ms);
    }
    return true;
}

bool LeasedNodes::is_far(std::uint64_t nodeid) const {
    const auto root = any_far_.load(std::memory_order_acquire) ? root_above(nodeid) : nullptr;
    return root && !root->source->is_near();
}

bool LeasedNodes::closes_slowly(std::uint64_t nodeid, const FileLease& lease) const {
    return is_far(nodeid) && !lease.reads_promptly();
}

bool LeasedNodes::is_remembered(std::uint64_t nodeid, const char* name) const {
    const auto node = nodes_.find(nodeid);
    if (!node || leased(*node) != 0) {
        return true;
    }
    if (name == nullptr && node->identity.type != S_IFDIR) {
        return is_remembered(node->link.parent, node->link.name.c_str());
    }
    SourceDirectory::Ref directory;
    if (node->is_root) {
        const auto root = root_of(nodeid);
        directory = root ? root->source->root() : nullptr;
    } else if (const auto cached = cache_.find(nodeid)) {
        directory = cached->at;
    }
    return directory &&
           (name == nullptr || directory->remembered(name) != sys::Remembered::unknown);
}

std::optional<LeasedNodes::Path> LeasedNodes::place_of(std::uint64_t nodeid) const {
    std::string path;
    for (std::size_t depth = 0; depth < kDepthLimit; ++depth) {
        const auto node = nodes_.find(nodeid);
        if (!node) {
            return std::nullopt;
        }
        if (node->is_root) {
            return Path{nodeid, std::move(path)};
        }
        path = path.empty() ? node->link.name : node->link.name + '/' + path;
        nodeid = node->link.parent;
    }
    return std::nullopt;
}

std::vector<LeasedNodes::Description> LeasedNodes::describe(std::uint64_t nodeid) {
    std::vector<Description> chain;
    std::shared_ptr<const LeaseRoot> root;
    for (auto at = nodeid; chain.size() < kDepthLimit;) {
        const auto node = nodes_.find(at);
        if (!node) {
            return {};
        }
        chain.push_back({at, node->link.name, 0, node->identity, 0});
        if (node->is_root) {
            root = root_of(at);
            break;
        }
        at = node->link.parent;
    }
    if (!root) {
        return {};
    }
    std::vector<Source::Volume> volumes;
    for (std::uint32_t layer = 0; layer < root->source->layers(); ++layer) {
        volumes.push_back(root->source->volume(layer));
    }
    for (auto& one : chain) {
        one.layer = one.identity.lease - root->number;
        one.identity.type &= S_IFMT;
        if (one.layer >= volumes.size()) {
            return {};
        }
        one.device = volumes[one.layer].device;
        nodes_.set_described(one.nodeid);
    }
    std::reverse(chain.begin(), chain.end());
    return chain;
}

}  // namespace zc
