#include "serve/nodes/mirrors.hpp"

#include <malloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>

#include "sys/syscalls.hpp"

namespace zc {

namespace {

// An outsider's rename is noticed within this time even where the kernel may cache for longer: it
// costs a directory one open a second.
constexpr std::int64_t kLongestTrustMs = 1000;
constexpr std::int64_t kKeepUnusedMs = 2000;
// Long, because control could not go on where they stand once the directory is revoked.
constexpr std::int64_t kKeepParkedMs = 60'000;
constexpr std::size_t kPathBytes = 4095;  // PATH_MAX without its NUL
// Renames outside can leave remembered parents that form a ring; no real path is as deep as this.
constexpr std::size_t kDepthLimit = 65'536;
// Shares of RLIMIT_NOFILE. What is left is for what clients have open, and for ourselves.
constexpr std::size_t kDirectoryShare = 4;
constexpr std::size_t kKeptShare = 4;
constexpr std::size_t kMostDirectories = 4096;
constexpr std::size_t kMostKept = 4096;
constexpr std::size_t kParkedShare = 16;
constexpr std::size_t kMostParked = 64;
constexpr std::size_t kLeast = 8;
constexpr std::size_t kWorthTrimming = 50'000;  // nodes: some megabytes

Validity validity_of(const Config& config) noexcept {
    if (config.immutable) {
        return {kUnlimitedSeconds, 0};
    }
    return {config.cache_timeout / 1000, config.cache_timeout % 1000 * 1'000'000};
}

std::size_t share(std::size_t of, std::size_t most) {
    return std::clamp(sys::descriptor_limit() / of, kLeast, most);
}

// The path no longer leads to the node: something else is there, or nothing is.
bool is_gone(int error) noexcept {
    return error == -ENOENT || error == -ENOTDIR || error == -ELOOP || error == -ENXIO ||
           error == -ENODEV || error == -ESTALE;
}

bool no_descriptors(int error) noexcept {
    return error == -EMFILE || error == -ENFILE;
}

bool other_mount(const LeaseRoot& root, const struct ::statx& status) noexcept {
    return (status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0 ||
           status.stx_dev_major != root.device_major || status.stx_dev_minor != root.device_minor;
}

}  // namespace

// A way from a directory that is known to be beneath the root down to the one that is wanted.
struct Mirrors::Climb {
    std::shared_ptr<const Directory> from;
    std::vector<std::string> names;  // the deepest first
    Identity wanted;
};

Mirrors::Mirrors(LeaseTable& leases, const Config& config)
    : cache_timeout_ms_(config.cache_timeout),
      validity_(validity_of(config)),
      trust_ms_(config.immutable ? kLongestTrustMs
                                 : std::min<std::int64_t>(config.cache_timeout, kLongestTrustMs)),
      cache_(share(kDirectoryShare, kMostDirectories)),
      files_(leases, share(kKeptShare, kMostKept)),
      parked_(share(kParkedShare, kMostParked)) {}

void Mirrors::lease(std::uint64_t nodeid, int root_fd, std::set<std::string, std::less<>> kept) {
    auto root = std::make_shared<LeaseRoot>();
    struct ::statx status {};
    int error = sys::dup_cloexec(root_fd, root->fd);
    if (error == 0) {
        error = sys::status_of(root->fd.get(), "", false, status);
    }
    if (error == 0 && !S_ISDIR(status.stx_mode)) {
        error = -ENOTDIR;
    }
    sys::UniqueFd probe;
    if (error == 0) {
        error = sys::open_beneath(root->fd.get(), ".", O_PATH | O_DIRECTORY, probe);
    }
    if (error < 0) {
        throw std::system_error(-error, std::generic_category(), "leasing a directory");
    }
    root->nodeid = nodeid;
    root->device_major = status.stx_dev_major;
    root->device_minor = status.stx_dev_minor;
    root->local = sys::is_local(root->fd.get());
    root->kept = std::move(kept);
    if (is_own(nodeid)) {
        nodes_.set_revoked(nodeid, false);
        return;
    }
    root->number = ++last_root_;
    const auto identity = identity_of(*root, status, root->fd.get(), "");
    {
        const std::unique_lock guard(roots_lock_);
        roots_[nodeid] = std::move(root);
    }
    nodes_.add_root(nodeid, identity);
    any_.store(true, std::memory_order_release);
}

bool Mirrors::revoke(std::uint64_t nodeid) {
    const bool known = nodes_.set_revoked(nodeid, true);
    revokes_.fetch_add(1, std::memory_order_acq_rel);
    cache_.clear();
    files_.drop_unused();
    return known;
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

Identity Mirrors::identity_of(const LeaseRoot& root, const struct ::statx& status, int directory,
                              const char* name) const {
    const std::uint64_t birth =
        (status.stx_mask & STATX_BTIME) != 0
            ? static_cast<std::uint64_t>(status.stx_btime.tv_sec) * 1'000'000'000 +
                  status.stx_btime.tv_nsec
            : sys::handle_hash(directory, name);
    return {status.stx_ino, birth, root.number,
            static_cast<std::uint32_t>(status.stx_mode) & S_IFMT};
}

int Mirrors::look(const Directory& directory, const char* name, struct ::statx& status) const {
    const auto& root = *directory.root;
    // Not before a mount is known not to be our own may its filesystem be asked anything.
    int error = sys::status_of(directory.fd(), name, true, status);
    if (error < 0) {
        return error;
    }
    if (*name != '\0' && other_mount(root, status)) {
        return kHandUp;
    }
    return root.local ? 0 : sys::status_of(directory.fd(), name, false, status);
}

int Mirrors::leased(const NodeView& node) const {
    if (!nodes_.any_revoked()) {
        return 0;
    }
    auto at = std::optional(node);
    for (std::size_t depth = 0; at && !at->revoked && depth < kDepthLimit; ++depth) {
        if (at->is_root) {
            return 0;
        }
        at = nodes_.find(at->link.parent);
    }
    return kHandUp;
}

int Mirrors::leased(std::uint64_t nodeid) const {
    const auto node = nodes_.find(nodeid);
    return node ? leased(*node) : kHandUp;
}

bool Mirrors::is_kept(const LeaseRoot& root, std::uint64_t parent, std::string_view name) const {
    if (root.kept.empty()) {
        return false;
    }
    std::string path(name);
    for (std::size_t depth = 0; depth < kDepthLimit; ++depth) {
        const auto node = nodes_.find(parent);
        if (!node) {
            return true;  // control will not know it either
        }
        if (node->is_root) {
            return root.kept.contains(path);
        }
        path.insert(0, 1, '/').insert(0, node->link.name);
        parent = node->link.parent;
    }
    return true;
}

void Mirrors::refuse_device(std::uint32_t major, std::uint32_t minor) noexcept {
    refused_device_ = std::uint64_t{major} << 32 | minor;
}

bool Mirrors::is_refused(const struct ::statx& status) const noexcept {
    return (std::uint64_t{status.stx_dev_major} << 32 | status.stx_dev_minor) == refused_device_;
}

bool Mirrors::fresh(const Directory& directory, std::int64_t now) const noexcept {
    return trust_ms_ > 0 && now - directory.checked < trust_ms_;
}

int Mirrors::climb(std::uint64_t nodeid, std::int64_t now, Climb& into) const {
    const bool to_the_root = nodes_.any_revoked();
    auto at = nodeid;
    while (into.names.size() < kDepthLimit) {
        auto node = nodes_.find(at);
        if (!node) {
            return at == nodeid && !is_own(at) ? kHandUp : -ESTALE;
        }
        if (node->revoked) {
            return kHandUp;
        }
        if (at == nodeid) {
            into.wanted = node->identity;
        }
        if (node->identity.type != S_IFDIR) {
            return -ENOTDIR;
        }
        if (node->is_root) {
            if (!into.from) {
                auto top = std::make_shared<Directory>();
                top->root = root_of(at);
                top->nodeid = at;
                top->checked = now;
                into.from = std::move(top);
            }
            return into.from && into.from->root ? 0 : kHandUp;
        }
        if (at != nodeid && !into.from) {
            auto cached = cache_.find(at);
            if (cached && fresh(*cached, now)) {
                into.from = std::move(cached);
                if (!to_the_root) {
                    return 0;
                }
            }
        }
        if (!into.from) {
            into.names.push_back(std::move(node->link.name));
        }
        at = node->link.parent;
    }
    return -ESTALE;
}

// In pieces that the kernel takes for a path.
int Mirrors::descend(const Climb& climb, sys::UniqueFd& into) const {
    int from = climb.from->fd();
    std::string path;
    auto name = climb.names.rbegin();
    while (name != climb.names.rend()) {
        path = *name++;
        while (name != climb.names.rend() && path.size() + 1 + name->size() <= kPathBytes) {
            path += '/';
            path += *name++;
        }
        sys::UniqueFd next;
        const int error = sys::open_beneath(from, path.c_str(), O_PATH | O_DIRECTORY, next);
        if (error < 0) {
            return error == -EXDEV ? kHandUp : is_gone(error) ? -ESTALE : error;
        }
        into = std::move(next);
        from = into.get();
    }
    return 0;
}

int Mirrors::check(const LeaseRoot& root, int directory, const char* name, const Identity& wanted,
                   struct ::statx& status) const {
    const int error = sys::status_of(directory, name, root.local, status);
    if (error < 0) {
        return error;
    }
    const bool same = status.stx_dev_major == root.device_major &&
                      status.stx_dev_minor == root.device_minor &&
                      identity_of(root, status, directory, name) == wanted;
    return same ? 0 : -ESTALE;
}

int Mirrors::directory(std::uint64_t nodeid, ThreadCounts& counts,
                       std::shared_ptr<const Directory>& into) {
    const auto now = sys::coarse_milliseconds();
    into = cache_.find(nodeid);
    if (into && fresh(*into, now)) {
        counts.directory_hits.add();
        return 0;
    }
    const auto generation = cache_.generation();
    Climb way;
    if (const int error = climb(nodeid, now, way); error != 0) {
        return error;
    }
    auto opened = std::make_shared<Directory>();
    opened->root = way.from->root;
    opened->nodeid = nodeid;
    opened->checked = way.from->checked;
    if (!way.names.empty()) {
        counts.directory_misses.add();
        int error = descend(way, opened->own);
        if (no_descriptors(error)) {
            give_back_descriptors();
            error = descend(way, opened->own);
        }
        struct ::statx status {};
        if (error == 0) {
            error = check(*opened->root, opened->own.get(), "", way.wanted, status);
        }
        if (error != 0) {
            cache_.drop(nodeid);
            return error;
        }
    }
    into = opened;
    cache_.put(std::move(opened), generation);
    return 0;
}

// Runs `attempt` with the directory and the name of each link until one leads to the node.
template <typename Try>
int Mirrors::by_any_link(std::uint64_t nodeid, const NodeView& node, ThreadCounts& counts,
                         Try attempt) {
    const auto one = [&](const Link& link) {
        std::shared_ptr<const Directory> parent;
        const int error = directory(link.parent, counts, parent);
        return error == 0 ? attempt(*parent, link.name.c_str()) : error;
    };
    int error = one(node.link);
    if (is_gone(error) && node.more_links) {
        for (const auto& link : nodes_.links(nodeid)) {
            if (error = one(link); !is_gone(error)) {
                break;
            }
        }
    }
    return is_gone(error) ? -ESTALE : error;
}

int Mirrors::open_directory(std::uint64_t nodeid, int flags, ThreadCounts& counts,
                            sys::UniqueFd& into, struct ::statx& status) {
    std::shared_ptr<const Directory> found;
    if (const int error = directory(nodeid, counts, found); error != 0) {
        return error;
    }
    if (const int error = sys::open_beneath(found->fd(), ".", flags, into); error != 0) {
        return error;
    }
    return sys::status_of(into.get(), "", found->root->local, status);
}

int Mirrors::open(std::uint64_t nodeid, int flags, ThreadCounts& counts, sys::UniqueFd& into,
                  struct ::statx& status) {
    const auto node = nodes_.find(nodeid);
    if (!node || leased(*node) != 0) {
        return kHandUp;
    }
    if (node->identity.type == S_IFDIR) {
        return open_directory(nodeid, flags, counts, into, status);
    }
    return by_any_link(nodeid, *node, counts, [&](const Directory& parent, const char* name) {
        const int error = sys::open_beneath(parent.fd(), name, flags, into);
        if (error < 0) {
            return error == -EXDEV ? kHandUp : error;
        }
        return check(*parent.root, into.get(), "", node->identity, status);
    });
}

int Mirrors::status(std::uint64_t nodeid, ThreadCounts& counts, struct ::statx& status) {
    const auto node = nodes_.find(nodeid);
    if (!node || leased(*node) != 0) {
        return kHandUp;
    }
    if (node->identity.type == S_IFDIR) {
        std::shared_ptr<const Directory> found;
        const int error = directory(nodeid, counts, found);
        return error != 0 ? error : look(*found, "", status);
    }
    // An open file answers for itself, whatever has become of its names.
    if (const auto lease = files_.in_use(nodeid)) {
        if (const auto* file = lease->whole_file(); file != nullptr) {
            return sys::status_of(file->get(), "", false, status);
        }
    }
    return by_any_link(nodeid, *node, counts, [&](const Directory& parent, const char* name) {
        if (const int error = look(parent, name, status); error != 0) {
            return error;
        }
        const auto found = identity_of(*parent.root, status, parent.fd(), name);
        return found == node->identity ? 0 : -ESTALE;
    });
}

std::vector<Mirrors::Description> Mirrors::describe(std::uint64_t nodeid) {
    std::vector<Description> chain;
    std::shared_ptr<LeaseRoot> root;
    for (auto at = nodeid; chain.size() < kDepthLimit;) {
        const auto node = nodes_.find(at);
        if (!node) {
            return {};
        }
        chain.push_back({at, node->link.name, 0, node->identity});
        if (node->is_root) {
            root = root_of(at);
            break;
        }
        at = node->link.parent;
    }
    if (!root) {
        return {};
    }
    struct ::statx status {};
    const bool births = sys::status_of(root->fd.get(), "", true, status) == 0 &&
                        (status.stx_mask & STATX_BTIME) != 0;
    for (auto& one : chain) {
        one.device = std::uint64_t{root->device_major} << 32 | root->device_minor;
        one.identity.birth = births ? one.identity.birth : 0;
        nodes_.set_described(one.nodeid);
    }
    std::reverse(chain.begin(), chain.end());
    return chain;
}

void Mirrors::forgotten(std::uint64_t nodeid) {
    cache_.drop(nodeid);
    files_.drop(nodeid);
    parked_.drop(nodeid);
}

void Mirrors::give_back_descriptors() {
    files_.drop_unused();
    parked_.clear();
    cache_.clear();
}

std::shared_ptr<LeaseRoot> Mirrors::root_above(std::uint64_t nodeid) const {
    const auto node = nodes_.find(nodeid);
    const std::shared_lock guard(roots_lock_);
    for (const auto& [top, root] : roots_) {
        if (node && root->number == node->identity.lease) {
            return root;
        }
    }
    return nullptr;
}

void Mirrors::tidy() {
    const auto nodes = nodes_.size();
    nodes_peak_ = std::max(nodes_peak_, nodes);
    if (nodes_peak_ >= kWorthTrimming && nodes < nodes_peak_ / 2) {
        ::malloc_trim(0);  // free() keeps what lies between nodes that are left
        nodes_peak_ = nodes;
    }
    const auto now = sys::coarse_milliseconds();
    files_.drop_unused(now - kKeepUnusedMs);
    files_.drop_deleted();
    parked_.drop_unused(now - kKeepParkedMs);
}

void Mirrors::clear() {
    files_.clear();
    listings_.clear();
    parked_.clear();
    cache_.clear();
}

Mirrors::Statistics Mirrors::statistics() const {
    std::size_t leased = 0;
    {
        const std::shared_lock guard(roots_lock_);
        leased = roots_.size();
    }
    return {leased,
            nodes_.size(),
            nodes_.bytes(),
            cache_.size(),
            cache_.capacity(),
            listings_.size() + parked_.size(),
            files_.statistics()};
}

}  // namespace zc
