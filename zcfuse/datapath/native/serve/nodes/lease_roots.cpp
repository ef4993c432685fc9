// The part of Mirrors that knows which directories are leased, and what of whom a node is.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "serve/nodes/mirrors.hpp"
#include "sys/syscalls.hpp"

namespace zc {

namespace {

// Throws std::system_error.
Layer layer_of(int fd) {
    Layer layer;
    struct ::statx status {};
    int error = sys::dup_cloexec(fd, layer.fd);
    if (error == 0) {
        error = sys::status_of(layer.fd.get(), "", false, status);
    }
    if (error == 0 && !S_ISDIR(status.stx_mode)) {
        error = -ENOTDIR;
    }
    sys::UniqueFd probe;
    if (error == 0) {
        error = sys::open_beneath(layer.fd.get(), ".", O_PATH | O_DIRECTORY, probe);
    }
    if (error < 0) {
        throw std::system_error(-error, std::generic_category(), "leasing a directory");
    }
    layer.device_major = status.stx_dev_major;
    layer.device_minor = status.stx_dev_minor;
    layer.local = sys::is_local(layer.fd.get());
    return layer;
}

}  // namespace

void Mirrors::lease(std::uint64_t nodeid, int root_fd, std::set<std::string, std::less<>> kept) {
    auto root = std::make_shared<LeaseRoot>();
    root->layers.push_back(layer_of(root_fd));
    root->nodeid = nodeid;
    root->kept = std::move(kept);
    if (is_own(nodeid)) {
        nodes_.set_revoked(nodeid, false);
        return;
    }
    add_root(std::move(root));
}

void Mirrors::lease_union(std::uint64_t nodeid, const std::vector<int>& layer_fds,
                          bool sees_trusted) {
    auto root = std::make_shared<LeaseRoot>();
    for (const int fd : layer_fds) {
        root->layers.push_back(layer_of(fd));
    }
    if (root->layers.empty()) {
        throw std::system_error(EINVAL, std::generic_category(), "leasing no directory");
    }
    root->nodeid = nodeid;
    root->merged = true;
    root->sees_trusted = sees_trusted;
    cache_.limit(std::max(cache_.capacity() / root->layers.size(), kLeastDescriptors));
    any_unions_.store(true, std::memory_order_release);
    add_root(std::move(root));
}

void Mirrors::add_root(std::shared_ptr<LeaseRoot> root) {
    const auto nodeid = root->nodeid;
    root->number = last_root_.fetch_add(static_cast<std::uint32_t>(root->layers.size())) + 1;
    const auto& top = root->layers.front().fd;
    struct ::statx status {};
    if (const int error = sys::status_of(top.get(), "", false, status); error < 0) {
        throw std::system_error(-error, std::generic_category(), "leasing a directory");
    }
    const auto identity = identity_of(*root, 0, status, top.get(), "");
    {
        const std::unique_lock guard(roots_lock_);
        roots_[nodeid] = std::move(root);
    }
    nodes_.add_root(nodeid, identity);
    any_.store(true, std::memory_order_release);
}

void Mirrors::drop(std::uint64_t nodeid) {
    std::shared_ptr<LeaseRoot> dropped;  // its descriptor is closed outside of the lock
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
    // Directories below it hold the root by pointer.
    cache_.clear();
}

std::shared_ptr<LeaseRoot> Mirrors::root_of(std::uint64_t nodeid) const {
    const std::shared_lock guard(roots_lock_);
    const auto found = roots_.find(nodeid);
    return found == roots_.end() ? nullptr : found->second;
}

std::shared_ptr<LeaseRoot> Mirrors::root_above(std::uint64_t nodeid) const {
    const auto node = nodes_.find(nodeid);
    const std::shared_lock guard(roots_lock_);
    for (const auto& [top, root] : roots_) {
        if (node && node->identity.lease - root->number < root->layers.size()) {
            return root;
        }
    }
    return nullptr;
}

bool Mirrors::in_union(std::uint64_t nodeid) const {
    const auto root = any_unions() ? root_above(nodeid) : nullptr;
    return root != nullptr && root->merged;
}

std::optional<Mirrors::Place> Mirrors::place_of(std::uint64_t nodeid) const {
    std::string path;
    for (std::size_t depth = 0; depth < kDepthLimit; ++depth) {
        const auto node = nodes_.find(nodeid);
        if (!node) {
            return std::nullopt;
        }
        if (node->is_root) {
            return Place{nodeid, std::move(path)};
        }
        path = path.empty() ? node->link.name : node->link.name + '/' + path;
        nodeid = node->link.parent;
    }
    return std::nullopt;
}

std::vector<Mirrors::Description> Mirrors::describe(std::uint64_t nodeid) {
    std::vector<Description> chain;
    std::shared_ptr<LeaseRoot> root;
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
    std::vector<bool> births;
    for (const auto& layer : root->layers) {
        struct ::statx status {};
        births.push_back(sys::status_of(layer.fd.get(), "", true, status) == 0 &&
                         (status.stx_mask & STATX_BTIME) != 0);
    }
    for (auto& one : chain) {
        one.layer = one.identity.lease - root->number;
        if (one.layer >= root->layers.size()) {
            return {};
        }
        const auto& layer = root->layers[one.layer];
        one.device = std::uint64_t{layer.device_major} << 32 | layer.device_minor;
        one.identity.birth = births[one.layer] ? one.identity.birth : 0;
        nodes_.set_described(one.nodeid);
    }
    std::reverse(chain.begin(), chain.end());
    return chain;
}

}  // namespace zc
