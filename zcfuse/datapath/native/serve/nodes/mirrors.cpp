#include "serve/nodes/mirrors.hpp"

#include <malloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "serve/sources/overlay.hpp"
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
// Shares of RLIMIT_NOFILE. What is left is for what clients have open, and for ourselves.
constexpr std::size_t kDirectoryShare = 4;
constexpr std::size_t kKeptShare = 4;
constexpr std::size_t kMostDirectories = 4096;
constexpr std::size_t kMostKept = 4096;
constexpr std::size_t kParkedShare = 16;
constexpr std::size_t kMostParked = 64;
constexpr std::size_t kWorthTrimming = 50'000;  // nodes: some megabytes

Validity validity_of(const Config& config) noexcept {
    if (config.immutable) {
        return {kUnlimitedSeconds, 0};
    }
    return {config.cache_timeout / 1000, config.cache_timeout % 1000 * 1'000'000};
}

std::size_t share(std::size_t of, std::size_t most) {
    return std::clamp(sys::descriptor_limit() / of, kLeastDescriptors, most);
}

// The path no longer leads to the node: something else is there, or nothing is.
bool is_gone(int error) noexcept {
    return error == -ENOENT || error == -ENOTDIR || error == -ELOOP || error == -ENXIO ||
           error == -ENODEV || error == -ESTALE;
}

bool no_descriptors(int error) noexcept {
    return error == -EMFILE || error == -ENFILE;
}

bool on_device(const Layer& layer, const struct ::statx& status) noexcept {
    return status.stx_dev_major == layer.device_major && status.stx_dev_minor == layer.device_minor;
}

bool other_mount(const Layer& layer, const struct ::statx& status) noexcept {
    return (status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0 || !on_device(layer, status);
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

bool Mirrors::revoke(std::uint64_t nodeid) {
    const bool known = nodes_.set_revoked(nodeid, true);
    revokes_.fetch_add(1, std::memory_order_acq_rel);
    cache_.clear();
    files_.drop_unused();
    return known;
}

Identity Mirrors::identity_of(const LeaseRoot& root, std::uint32_t layer,
                              const struct ::statx& status, int directory, const char* name) {
    const std::uint64_t birth =
        (status.stx_mask & STATX_BTIME) != 0
            ? static_cast<std::uint64_t>(status.stx_btime.tv_sec) * 1'000'000'000 +
                  status.stx_btime.tv_nsec
            : sys::handle_hash(directory, name);
    return {status.stx_ino, birth, root.number + layer,
            static_cast<std::uint32_t>(status.stx_mode) & S_IFMT};
}

int Mirrors::look_at(const Layer& layer, int directory, const char* name, struct ::statx& status) {
    // Not before a mount is known not to be our own may its filesystem be asked anything.
    int error = sys::status_of(directory, name, true, status);
    if (error < 0) {
        return error;
    }
    if (directory != layer.fd.get() || *name != '\0') {
        if (other_mount(layer, status)) {
            return kHandUp;
        }
    }
    return layer.local ? 0 : sys::status_of(directory, name, false, status);
}

// As control shows it, which answers for other mounts (tree/_mirror.py, mixed_ino).
std::uint64_t Mirrors::shown_ino(const LeaseRoot& root, const struct ::statx& status) noexcept {
    if (on_device(root.layers.front(), status)) {
        return status.stx_ino;
    }
    const auto device = std::uint64_t{status.stx_dev_major} << 32 | status.stx_dev_minor;
    std::uint64_t value = device * 0x9E3779B97F4A7C15 + status.stx_ino;
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
    value = (value ^ value >> 27) * 0x94D049BB133111EB;
    value ^= value >> 31;
    return value != 0 ? value : 1;
}

// A merged directory's links would be those of one layer; 1 says that they tell nothing.
void Mirrors::show(const Directory& directory, std::size_t parts, struct ::statx& status) noexcept {
    status.stx_ino = shown_ino(*directory.root, status);
    if (parts > 1) {
        status.stx_nlink = 1;
    }
}

int Mirrors::find(const Directory& directory, const char* name, Found& into) {
    const auto& root = *directory.root;
    if (!root.merged) {
        const int error = look_at(root.layers.front(), directory.fd(), name, into.status);
        if (error == 0) {
            into.identity = identity_of(root, 0, into.status, directory.fd(), name);
        }
        return error;
    }
    unions::Shown shown;
    int error = unions::find(directory, name, shown);
    if (no_descriptors(error)) {
        give_back_descriptors();
        error = unions::find(directory, name, shown);
    }
    into.status = shown.status;
    if (error != 0) {
        return error;
    }
    const auto layer = directory.parts[shown.part].layer;
    into.identity = identity_of(root, layer, into.status, directory.fd(shown.part), name);
    show(directory, shown.parts.size(), into.status);
    return 0;
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
                for (std::uint32_t layer = 0; top->root && layer < top->root->layers.size();
                     ++layer) {
                    top->parts.push_back({layer, {}});
                }
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

// Name by name, because each layer may hide what those below it have.
int Mirrors::descend_merged(const Climb& climb, Directory& into) const {
    const Directory* above = climb.from.get();
    Directory at;
    at.root = climb.from->root;
    for (auto name = climb.names.rbegin(); name != climb.names.rend(); ++name) {
        std::vector<Part> parts;
        if (const int error = unions::step(*above, name->c_str(), parts); error != 0) {
            return is_gone(error) ? -ESTALE : error;
        }
        at.parts = std::move(parts);
        above = &at;
    }
    into.parts = std::move(at.parts);
    return 0;
}

int Mirrors::check(const LeaseRoot& root, int directory, const char* name, const Identity& wanted,
                   struct ::statx& status) const {
    const auto number = wanted.lease - root.number;
    if (number >= root.layers.size()) {
        return -ESTALE;
    }
    const auto& layer = root.layers[number];
    const int error = sys::status_of(directory, name, layer.local, status);
    if (error < 0) {
        return error;
    }
    const bool same =
        on_device(layer, status) && identity_of(root, number, status, directory, name) == wanted;
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
    if (way.names.empty()) {
        for (const auto& part : way.from->parts) {
            opened->parts.push_back({part.layer, {}});
        }
    } else {
        counts.directory_misses.add();
        const auto open = [&] {
            if (opened->root->merged) {
                return descend_merged(way, *opened);
            }
            opened->parts = std::vector<Part>(1);
            return descend(way, opened->parts.front().own);
        };
        int error = open();
        if (no_descriptors(error)) {
            give_back_descriptors();
            error = open();
        }
        struct ::statx status {};
        if (error == 0) {
            error = check(*opened->root, opened->fd(), "", way.wanted, status);
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

// Runs `attempt` with the directory, its part in the node's layer and the name of each link until
// one leads to the node.
template <typename Try>
int Mirrors::by_any_link(std::uint64_t nodeid, const NodeView& node, ThreadCounts& counts,
                         Try attempt) {
    const auto one = [&](const Link& link) {
        std::shared_ptr<const Directory> parent;
        if (const int error = directory(link.parent, counts, parent); error != 0) {
            return error;
        }
        for (std::size_t part = 0; part < parent->parts.size(); ++part) {
            if (parent->root->number + parent->parts[part].layer == node.identity.lease) {
                return attempt(*parent, part, link.name.c_str());
            }
        }
        return -ESTALE;
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
    return sys::status_of(into.get(), "", found->layer(0).local, status);
}

int Mirrors::open_parts(std::uint64_t nodeid, int flags, ThreadCounts& counts,
                        std::vector<Part>& into, std::vector<struct ::statx>& statuses) {
    into.clear();
    statuses.clear();
    std::shared_ptr<const Directory> found;
    if (const int error = directory(nodeid, counts, found); error != 0) {
        return error;
    }
    for (std::size_t part = 0; part < found->parts.size(); ++part) {
        Part opened{found->parts[part].layer, {}};
        struct ::statx status {};
        int error = sys::open_beneath(found->fd(part), ".", flags, opened.own);
        if (error == 0) {
            error = sys::status_of(opened.own.get(), "", found->layer(part).local, status);
        }
        if (error != 0) {
            return error;
        }
        into.push_back(std::move(opened));
        statuses.push_back(status);
    }
    return 0;
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
    const auto attempt = [&](const Directory& parent, std::size_t part, const char* name) {
        const int error = sys::open_beneath(parent.fd(part), name, flags, into);
        if (error < 0) {
            return error == -EXDEV ? kHandUp : error;
        }
        return check(*parent.root, into.get(), "", node->identity, status);
    };
    return by_any_link(nodeid, *node, counts, attempt);
}

int Mirrors::status(std::uint64_t nodeid, ThreadCounts& counts, struct ::statx& status) {
    const auto node = nodes_.find(nodeid);
    if (!node || leased(*node) != 0) {
        return kHandUp;
    }
    if (node->identity.type == S_IFDIR) {
        std::shared_ptr<const Directory> found;
        int error = directory(nodeid, counts, found);
        if (error == 0) {
            error = sys::status_of(found->fd(), "", found->layer(0).local, status);
        }
        if (error == 0) {
            show(*found, found->parts.size(), status);
        }
        return error;
    }
    // An open file answers for itself, whatever has become of its names.
    if (const auto lease = files_.in_use(nodeid)) {
        if (const auto* file = lease->whole_file(); file != nullptr) {
            const int error = sys::status_of(file->get(), "", false, status);
            const auto root = any_unions() && error == 0 ? root_above(nodeid) : nullptr;
            if (root != nullptr) {
                status.stx_ino = shown_ino(*root, status);
            }
            return error;
        }
    }
    const auto attempt = [&](const Directory& parent, std::size_t part, const char* name) {
        if (const int error = look_at(parent.layer(part), parent.fd(part), name, status);
            error != 0) {
            return error;
        }
        const auto layer = parent.parts[part].layer;
        if (identity_of(*parent.root, layer, status, parent.fd(part), name) != node->identity) {
            return -ESTALE;
        }
        show(parent, 1, status);
        return 0;
    };
    return by_any_link(nodeid, *node, counts, attempt);
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
