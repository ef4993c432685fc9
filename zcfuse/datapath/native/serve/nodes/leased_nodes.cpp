#include "serve/nodes/leased_nodes.hpp"

#include <fcntl.h>
#include <malloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "sys/changes.hpp"
#include "sys/syscalls.hpp"

namespace zc {

namespace {

// An outsider's rename is noticed within this time even if the kernel may cache for longer. The
// price is one open per directory and second.
constexpr std::int64_t kLongestTrustMs = 1000;
constexpr std::int64_t kKeepUnusedMs = 2000;
// Where opens send no message: a client may have the file open, and read on.
constexpr std::int64_t kKeepSilentMs = 5000;
// Long, because control cannot continue a listing at their cookie after a revoke.
constexpr std::int64_t kKeepParkedMs = 60'000;
// Each cache gets 1/share of RLIMIT_NOFILE. The rest is for clients' open files and the daemon.
constexpr std::size_t kDirectoryShare = 4;
constexpr std::size_t kKeptShare = 4;
constexpr std::size_t kMostDirectories = 4096;
constexpr std::size_t kMostKept = 4096;
constexpr std::size_t kParkedShare = 16;
constexpr std::size_t kMostParked = 64;
constexpr std::size_t kListingShare = 8;
constexpr std::size_t kMostListings = 256;
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

}  // namespace

// A way from a directory that is known to be beneath the root down to the one that is wanted.
struct LeasedNodes::Climb {
    std::shared_ptr<const Directory> from;
    std::vector<std::string> names;  // the deepest first
    Identity wanted;
};

LeasedNodes::LeasedNodes(LeaseTable& leases, const Config& config, SurvivingState& surviving)
    : cache_timeout_ms_(config.cache_timeout),
      validity_(validity_of(config)),
      trust_ms_(config.immutable ? kLongestTrustMs
                                 : std::min<std::int64_t>(config.cache_timeout, kLongestTrustMs)),
      silent_opens_(config.wants_silent_opens()),
      users_(std::make_shared<UserDescriptors>(sys::descriptor_limit(), config.shared)),
      session_(surviving.session()),
      made_copies_(surviving.copies()),
      nodes_(surviving.nodes()),
      cache_(share(kDirectoryShare, kMostDirectories)),
      files_(leases, share(kKeptShare, kMostKept), *users_, closer_,
             [this](auto nodeid, const auto& lease) { return closes_slowly(nodeid, lease); }),
      listings_(share(kListingShare, kMostListings), surviving.session()),
      parked_(share(kParkedShare, kMostParked)) {}

bool LeasedNodes::revoke(std::uint64_t nodeid) {
    const bool known = nodes_.set_revoked(nodeid, true);
    revokes_.fetch_add(1, std::memory_order_acq_rel);
    cache_.clear();
    files_.drop_unused();
    return known;
}

// The kernel may cache without a time limit if a push or the source's end invalidates its cache. A
// cache timeout of 0 still means no caching.
Validity LeasedNodes::validity(Freshness freshness) const noexcept {
    const bool none = validity_.seconds == 0 && validity_.nanoseconds == 0;
    const bool timed = freshness == Freshness::timed || freshness == Freshness::names;
    return timed || none ? validity_ : Validity{kUnlimitedSeconds, 0};
}

int LeasedNodes::leased(const NodeView& node) const {
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
    return kUpcall;
}

int LeasedNodes::leased(std::uint64_t nodeid) const {
    const auto node = nodes_.find(nodeid);
    return node ? leased(*node) : kUpcall;
}

bool LeasedNodes::is_kept(const LeaseRoot& root, std::uint64_t parent,
                          std::string_view name) const {
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

void LeasedNodes::refuse_device(std::uint32_t major, std::uint32_t minor) noexcept {
    refused_device_ = std::uint64_t{major} << 32 | minor;
}

bool LeasedNodes::is_refused(const struct ::statx& status) const noexcept {
    return device_of(status) == refused_device_;
}

bool LeasedNodes::fresh(const Directory& directory, std::int64_t now) const noexcept {
    return directory.root->source->freshness() == Freshness::fixed ||
           (trust_ms_ > 0 && now - directory.checked < trust_ms_);
}

int LeasedNodes::climb(std::uint64_t nodeid, std::int64_t now, Climb& into) const {
    const bool to_the_root = nodes_.any_revoked();
    auto at = nodeid;
    while (into.names.size() < kDepthLimit) {
        auto node = nodes_.find(at);
        if (!node) {
            return at == nodeid && !is_own(at) ? kUpcall : -ESTALE;
        }
        if (node->revoked) {
            return kUpcall;
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
                top->at = top->root ? top->root->source->root() : nullptr;
                top->nodeid = at;
                top->checked = now;
                into.from = std::move(top);
            }
            return into.from->root ? 0 : kUpcall;
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

int LeasedNodes::descend(const Climb& climb, Directory& into) {
    std::string path;
    for (auto name = climb.names.rbegin(); name != climb.names.rend(); ++name) {
        path.append(path.empty() ? "" : "/").append(*name);
    }
    const int error = with_descriptors(
        [&] { return climb.from->at->enter_to(path, into.within(climb.wanted), into.at); });
    if (error != 0) {
        return is_gone(error) ? -ESTALE : error;
    }
    Found found;
    if (const int looked = into.at->find("", found); looked != 0) {
        return looked;
    }
    return found.identity == into.within(climb.wanted) ? 0 : -ESTALE;
}

// A name that leads nowhere may have been renamed since it was read from the table.
template <typename Try>
int LeasedNodes::despite_renames(Try attempt) const {
    const auto before = renames_.load(std::memory_order_acquire);
    const int error = attempt();
    if (error != -ESTALE) {
        return error;
    }
    const Renames::Look look(under_way_);
    return !look || renames_.load(std::memory_order_acquire) == before ? error : attempt();
}

int LeasedNodes::directory(std::uint64_t nodeid, ThreadCounts& counts,
                           std::shared_ptr<const Directory>& into) {
    const int error = despite_renames([&] { return directory_now(nodeid, counts, into); });
    return error == -ESTALE ? orphan_directory(nodeid, into) : error;
}

int LeasedNodes::directory_for(std::uint64_t nodeid, std::uint32_t uid, ThreadCounts& counts,
                               std::shared_ptr<const Directory>& into) {
    if (const int error = directory(nodeid, counts, into); error != 0) {
        return error;
    }
    if (auto at = into->at->seen_by(uid)) {
        auto own = std::make_shared<Directory>();
        own->at = std::move(at);
        own->root = into->root;
        own->nodeid = nodeid;
        own->checked = into->checked;
        own->personal = true;
        into = std::move(own);
    }
    return 0;
}

// The directory of a node whose name a client removed, which is empty.
int LeasedNodes::orphan_directory(std::uint64_t nodeid,
                                  std::shared_ptr<const Directory>& into) const {
    const auto orphan = orphans_.find(nodeid);
    const auto root = orphan ? root_above(nodeid) : nullptr;
    sys::UniqueFd copy;
    if (!root || sys::dup_cloexec(orphan->get(), copy) < 0) {
        return -ESTALE;
    }
    auto opened = std::make_shared<Directory>();
    opened->root = root;
    opened->at = root->source->adopt(std::move(copy));
    opened->nodeid = nodeid;
    if (!opened->at) {
        return -ESTALE;
    }
    into = std::move(opened);
    return 0;
}

int LeasedNodes::directory_now(std::uint64_t nodeid, ThreadCounts& counts,
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
    opened->at = way.from->at;
    opened->nodeid = nodeid;
    opened->checked = way.from->checked;
    if (!way.names.empty()) {
        counts.directory_misses.add();
        if (const int error = descend(way, *opened); error != 0) {
            cache_.drop(nodeid);
            return error;
        }
    }
    into = opened;
    cache_.put(std::move(opened), generation);
    return 0;
}

template <typename Try>
int LeasedNodes::with_descriptors(Try attempt) {
    const int error = attempt();
    if (error != -EMFILE && error != -ENFILE) {
        return error;
    }
    give_back_descriptors();
    return attempt();
}

int LeasedNodes::find(const Directory& directory, const char* name, Found& into) {
    const int error = with_descriptors([&] { return directory.at->find(name, into); });
    into.identity.lease += directory.root->number;
    return error;
}

// Runs `attempt` with the directory and the name of each link until one leads to the node.
template <typename Try>
int LeasedNodes::at_links(std::uint64_t nodeid, const NodeView& node, ThreadCounts& counts,
                          Try attempt) {
    const auto one = [&](const Link& link) {
        std::shared_ptr<const Directory> parent;
        const int error = directory_now(link.parent, counts, parent);
        return error != 0 ? error : attempt(*parent, link.name.c_str());
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

// Runs `attempt` with the open directory, the name and the identity that lead to a node, and the
// source's root.
template <typename Try>
int LeasedNodes::at_now(std::uint64_t nodeid, ThreadCounts& counts, Try attempt) {
    const auto node = nodes_.find(nodeid);
    if (!node || leased(*node) != 0) {
        return kUpcall;
    }
    const auto identity = present(nodeid, node->identity);
    const auto tried = [&](const Directory& directory, const char* name) {
        return attempt(*directory.at, name, directory.within(identity), *directory.root);
    };
    return with_descriptors([&] {
        if (node->identity.type != S_IFDIR) {
            return at_links(nodeid, *node, counts, tried);
        }
        std::shared_ptr<const Directory> itself;
        const int error = directory_now(nodeid, counts, itself);
        return error != 0 ? error : tried(*itself, "");
    });
}

template <typename Try>
int LeasedNodes::at(std::uint64_t nodeid, ThreadCounts& counts, Try attempt) {
    return despite_renames([&] { return at_now(nodeid, counts, attempt); });
}

bool LeasedNodes::is_pushed(std::uint64_t nodeid) const {
    const auto root = root_above(nodeid);
    return root != nullptr && root->source->freshness() == Freshness::pushed;
}

bool LeasedNodes::is_strict(std::uint64_t nodeid) const {
    if (!any_strict_.load(std::memory_order_acquire)) {
        return false;
    }
    const auto root = root_above(nodeid);
    return root != nullptr && root->source->freshness() == Freshness::strict;
}

int LeasedNodes::status(std::uint64_t nodeid, ThreadCounts& counts, struct ::statx& into,
                        Validity& validity) {
    const auto node = nodes_.find(nodeid);
    if (!node || leased(*node) != 0) {
        return kUpcall;
    }
    hold(nodeid, NodeTable::Held::attributes);
    const auto open = node->identity.type != S_IFDIR ? files_.in_use(nodeid) : nullptr;
    const auto lease = open && is_copied(nodeid) ? nullptr : open;
    if (lease && lease->shown() != nullptr) {
        validity = validity_;
        return lease->shown()->status(*lease, into);
    }
    if (const auto* file = lease ? lease->whole_file() : nullptr; file != nullptr) {
        // An open file answers for itself, whatever has become of its names.
        const int error = sys::status_of(file->get(), "", false, into);
        const bool asks_root = (any_overlays_ || any_pushed_) && error == 0;
        const auto root = asks_root ? root_above(nodeid) : nullptr;
        validity = root != nullptr ? this->validity(root->source->freshness()) : validity_;
        into.stx_ino = root != nullptr ? root->source->shown_ino(into) : into.stx_ino;
        return error;
    }
    const int error = at(nodeid, counts,
                         [&](const auto& directory, const char* name, const Identity& wanted,
                             const LeaseRoot& root) {
                             validity = this->validity(root.source->freshness());
                             return directory.status(name, wanted, into);
                         });
    if (error == -ESTALE && open && open->shown() != nullptr) {
        return open->shown()->status(*open, into);
    }
    if (error == -ESTALE && open && open->whole_file() != nullptr) {
        return sys::status_of(open->whole_file()->get(), "", false, into);
    }
    if (error == -ESTALE && silent_opens_ && is_pushed(nodeid)) {
        if (const auto kept = files_.find(nodeid); kept && kept->whole_file() != nullptr) {
            validity = {};
            return sys::status_of(kept->whole_file()->get(), "", false, into);
        }
    }
    const auto orphan = error == -ESTALE ? orphans_.find(nodeid) : nullptr;
    return orphan ? sys::status_of(orphan->get(), "", false, into) : error;
}

int LeasedNodes::hold(std::uint64_t nodeid, int flags, ThreadCounts& counts, sys::UniqueFd& into,
                      struct ::statx& status) {
    const int error =
        at(nodeid, counts,
           [&](const auto& directory, const char* name, const Identity& wanted, const LeaseRoot&) {
               return directory.hold(name, wanted, flags, into, status);
           });
    const auto orphan = error == -ESTALE ? orphans_.find(nodeid) : nullptr;
    if (!orphan) {
        return error;
    }
    const int reopened = sys::reopen(orphan->get(), flags, into);
    return reopened != 0 ? reopened : sys::status_of(into.get(), "", false, status);
}

int LeasedNodes::made(const Directory& directory, int file, const char* name, Found& into) {
    const int error = directory.at->identify(file, name, into);
    into.identity.lease += directory.root->number;
    return error;
}

int LeasedNodes::open(std::uint64_t nodeid, ThreadCounts& counts, Opened& into,
                      Freshness& freshness) {
    return at(nodeid, counts,
              [&](const auto& directory, const char* name, const Identity& wanted,
                  const LeaseRoot& root) {
                  freshness = root.source->data_freshness();
                  const int error = directory.open(name, wanted, into);
                  // Another process holds a lease (fcntl(2)) on the file: control waits for it.
                  return error == -EAGAIN ? kUpcall : error;
              });
}

int LeasedNodes::reopen(std::uint64_t nodeid, ThreadCounts& counts, struct ::statx& into,
                        Freshness& freshness) {
    return at(nodeid, counts,
              [&](const auto& directory, const char* name, const Identity& wanted,
                  const LeaseRoot& root) {
                  freshness = root.source->data_freshness();
                  return directory.reopen(name, wanted, into);
              });
}

int LeasedNodes::read_link(std::uint64_t nodeid, ThreadCounts& counts, std::string& into) {
    return at(nodeid, counts,
              [&](const auto& directory, const char* name, const Identity& wanted,
                  const LeaseRoot&) { return directory.read_link(name, wanted, into); });
}

int LeasedNodes::get_xattr(std::uint64_t nodeid, ThreadCounts& counts, const char* attribute,
                           Bytes& into) {
    return at(nodeid, counts,
              [&](const auto& directory, const char* name, const Identity& wanted,
                  const LeaseRoot&) { return directory.get_xattr(name, wanted, attribute, into); });
}

int LeasedNodes::list_xattrs(std::uint64_t nodeid, ThreadCounts& counts, Bytes& into) {
    return at(nodeid, counts,
              [&](const auto& directory, const char* name, const Identity& wanted,
                  const LeaseRoot&) { return directory.list_xattrs(name, wanted, into); });
}

int LeasedNodes::list(std::uint64_t nodeid, std::uint32_t uid, ThreadCounts& counts,
                      const Watches& watches, OpenDirectory& into,
                      std::vector<struct ::statx>& versions, Freshness& freshness) {
    return with_descriptors([&] {
        versions.clear();
        into.name_changes = name_changes();
        std::shared_ptr<const Directory> directory;
        if (const int error = directory_for(nodeid, uid, counts, directory); error != 0) {
            return error;
        }
        into.personal = directory->personal;
        freshness = directory->root->source->freshness();
        freshness = watches(directory) ? Freshness::pushed : freshness;
        return directory->at->list(into.listing, versions);
    });
}

int LeasedNodes::filesystem_status(std::uint64_t nodeid, struct ::statvfs& into) const {
    const auto root = root_above(nodeid);
    return root && leased(nodeid) == 0 ? root->source->filesystem_status(into) : kUpcall;
}

void LeasedNodes::forgotten(std::uint64_t nodeid) {
    cache_.drop(nodeid);
    files_.drop(nodeid);
    parked_.drop(nodeid);
    orphans_.drop(nodeid);
    if (copies() > 0) {
        const std::lock_guard guard(copied_lock_);
        if (const auto node = copied_.extract(nodeid)) {
            const auto found = originals_.find(node.mapped());
            if (found != originals_.end() && found->second.erase(nodeid) != 0 &&
                found->second.empty()) {
                originals_.erase(found);
            }
        }
    }
}

void LeasedNodes::give_back_descriptors() {
    files_.drop_unused();
    parked_.clear();
    listings_.give_back_descriptors();
    cache_.clear();
}

bool LeasedNodes::spares(std::uint32_t uid, int fd) {
    if (users_->spares(uid, fd)) {
        return true;
    }
    give_back_descriptors();
    return false;
}

void LeasedNodes::share_descriptors() noexcept {
    const sys::UniqueFd next(::open("/", O_PATH | O_CLOEXEC));
    users_->share_from(next ? static_cast<std::size_t>(next.get()) : sys::descriptor_limit());
}

bool LeasedNodes::spares_another(std::uint32_t uid) {
    const auto attempt = [&] {
        const sys::UniqueFd next(::open("/", O_PATH | O_CLOEXEC));
        return next && spares(uid, next.get());
    };
    return uid == 0 || attempt() || attempt();
}

void LeasedNodes::tidy() {
    const auto nodes = nodes_.size();
    nodes_peak_ = std::max(nodes_peak_, nodes);
    if (nodes_peak_ >= kWorthTrimming && nodes < nodes_peak_ / 2) {
        nodes_.compact();
        ::malloc_trim(0);
        nodes_peak_ = nodes;
    } else if (snapshots_->take_freed()) {
        ::malloc_trim(0);
    }
    const auto now = sys::coarse_milliseconds();
    files_.drop_unused(now - (silent_opens_ ? kKeepSilentMs : kKeepUnusedMs));
    if (!silent_opens_) {
        files_.drop_deleted();  // with silent opens a client may read on
    }
    parked_.drop_unused(now - kKeepParkedMs);
}

void LeasedNodes::clear() {
    files_.clear();
    listings_.clear();
    parked_.clear();
    cache_.clear();
}

LeasedNodes::Statistics LeasedNodes::statistics() const {
    Statistics sum;
    {
        const std::shared_lock guard(roots_lock_);
        sum.leased = roots_.size();
        for (const auto& [nodeid, root] : roots_) {
            const auto entries = root->source->entries();
            const auto bytes = root->source->bytes();
            sum.entries += entries;
            sum.entry_bytes += entries > 0 ? bytes : 0;
            sum.indexes += entries == 0 && root->source->kind() == Source::Kind::index ? 1 : 0;
            sum.index_bytes += entries > 0 ? 0 : bytes;
        }
    }
    sum.nodes = nodes_.size();
    sum.node_bytes = nodes_.bytes();
    sum.directories = cache_.size();
    sum.directory_limit = cache_.capacity();
    sum.listings = listings_.size() + parked_.size();
    sum.snapshots = snapshots_->statistics();
    sum.files = files_.statistics();
    return sum;
}

}  // namespace zc
