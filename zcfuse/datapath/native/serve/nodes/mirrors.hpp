// Maps a nodeid to the source that answers for it: a lease says "node N shows this source", with
// all nodes below.
//
// A node is an identity and the names that lookups used for it (table.hpp). A request reaches a
// node through the open directory above it and a name there. The source compares the identity and
// answers ESTALE if it differs. kHandUp leaves a request to control: the node is control's,
// revoked, or behind another mount.
//
// Threads: any. Lock order: an OpenDirectory's, then each of the tables' locks by itself;
// roots_lock_ is innermost. These may race with a request:
//   - an outsider who renames or deletes a file, or replaces it by a symbolic link: a source
//     follows no links and compares the identity. A cached directory lay beneath the root one cache
//     timeout ago at most (and at most one second ago), unless its source never changes.
//   - a revoke: the lease still answers requests that checked the mark before it was set.
//     DataPath's revoke() waits for those, but not for long; ops::serve makes the kernel forget a
//     later answer. A directory found before the revoke never enters the cache after it
//     (generation).
//   - a client's rename: it holds renames_lock_ until the new name is noted. A request that finds
//     nothing under a name meanwhile waits for the lock and looks again (despite_renames).
//   - a FORGET: the node is gone and the request gets ESTALE. A correct kernel never does this.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "serve/config.hpp"
#include "serve/constants.hpp"
#include "serve/ledger.hpp"
#include "serve/nodes/directories.hpp"
#include "serve/nodes/open_directories.hpp"
#include "serve/nodes/open_files.hpp"
#include "serve/nodes/orphans.hpp"
#include "serve/nodes/parked_listings.hpp"
#include "serve/nodes/table.hpp"
#include "serve/sources/snapshots.hpp"
#include "serve/surviving/surviving_state.hpp"
#include "sys/files.hpp"

namespace zc {

// A cache of descriptors may always hold this many, however low RLIMIT_NOFILE is.
inline constexpr std::size_t kLeastDescriptors = 8;

// For how long the kernel may cache an answer.
struct Validity {
    std::uint64_t seconds = 0;
    std::uint32_t nanoseconds = 0;
};
// 136 years. The kernel clamps values beyond its clock's range.
inline constexpr std::uint64_t kUnlimitedSeconds = 0xFFFF'FFFF;

class Mirrors {
  public:
    // Borrows the state.
    Mirrors(LeaseTable& leases, const Config& config, SurvivingState& surviving);

    // Whether there are no leases: one load, since every request asks.
    bool none() const noexcept { return !any_.load(std::memory_order_acquire); }

    // Shows a source at a node, except the paths `kept` below it. Replaces the node's former
    // source, and undoes the revoke of a directory below another lease. Throws std::system_error.
    void lease(std::uint64_t nodeid, std::shared_ptr<const Source> source,
               std::set<std::string, std::less<>> kept = {});
    // Returns false for a node that is not leased. Open files stay open.
    bool revoke(std::uint64_t nodeid);
    // Removes the lease of a directory that the kernel has forgotten. Control answers requests
    // about nodes below it.
    void drop(std::uint64_t nodeid);
    // The number of revokes. The kernel must not keep an answer that began before a revoke and
    // went out after it.
    std::uint64_t revokes() const noexcept { return revokes_.load(std::memory_order_acquire); }

    struct Description {
        std::uint64_t nodeid = 0;
        std::string name;
        std::uint64_t device = 0;  // major << 32 | minor
        Identity identity;
        std::uint32_t layer = 0;
    };
    // The node and those above it, the leased directory first; empty for an unknown node. From now
    // on control also gets their FORGETs.
    std::vector<Description> describe(std::uint64_t nodeid);

    // The names that last led to a node, from the leased directory down; nullopt for an unknown
    // node. Changes nothing, unlike describe().
    struct Place {
        std::uint64_t root = 0;  // nodeid of the leased directory
        std::string path;        // "a/b"; "" for the directory itself
    };
    std::optional<Place> place_of(std::uint64_t nodeid) const;

    // Opens a leased directory to look up names in it. `counts` are the calling thread's.
    int directory(std::uint64_t nodeid, ThreadCounts& counts,
                  std::shared_ptr<const Directory>& into);
    // Looks up a name in a directory; the identity is that of the table of nodes.
    int find(const Directory& directory, const char* name, Found& into);

    // These act on the node itself, by one of its names or, in status(), as an open file.
    // `validity`: for how long the kernel may cache the status.
    int status(std::uint64_t nodeid, ThreadCounts& counts, struct ::statx& into,
               Validity& validity);
    int open(std::uint64_t nodeid, ThreadCounts& counts, Opened& into, Freshness& freshness);
    int reopen(std::uint64_t nodeid, ThreadCounts& counts, struct ::statx& into,
               Freshness& freshness);
    int read_link(std::uint64_t nodeid, ThreadCounts& counts, std::string& into);
    int get_xattr(std::uint64_t nodeid, ThreadCounts& counts, const char* name, Bytes& into);
    int list_xattrs(std::uint64_t nodeid, ThreadCounts& counts, Bytes& into);
    int list(std::uint64_t nodeid, ThreadCounts& counts, OpenDirectory& into,
             std::vector<struct ::statx>& versions, Freshness& freshness);
    int filesystem_status(std::uint64_t nodeid, struct ::statvfs& into) const;
    // Opens the node itself with flags of open(2), to change it. Works only in a real directory's
    // tree.
    int hold(std::uint64_t nodeid, int flags, ThreadCounts& counts, sys::UniqueFd& into,
             struct ::statx& status);
    // Whether a node belongs to a real directory's tree, which clients may change.
    bool is_plain(std::uint64_t nodeid) const;
    // Looks at a file that a client just made in a directory; `into` gets the identity of the table
    // of nodes.
    static int made(const Directory& directory, int file, Found& into);
    // Held from before a rename until the table of nodes has the new name.
    class Renaming;

    // 0 or kHandUp.
    int leased(const NodeView& node) const;
    int leased(std::uint64_t nodeid) const;
    // Whether a name in a directory stays with control.
    bool is_kept(const LeaseRoot& root, std::uint64_t parent, std::string_view name) const;
    // Hides our own mount's device from listings. Call it before threads start.
    void refuse_device(std::uint32_t major, std::uint32_t minor) noexcept;
    bool is_refused(const struct ::statx& status) const noexcept;
    std::uint64_t refused_device() const noexcept { return refused_device_; }
    // Milliseconds for which an open directory counts as still in its place.
    std::int64_t trust_ms() const noexcept { return trust_ms_; }
    // Closes cached directories, so that they are opened again: control has removed some.
    void forget_directories() { cache_.clear(); }

    std::shared_ptr<const LeaseRoot> root_of(std::uint64_t nodeid) const;
    // Drops what is kept for a node, because the kernel has forgotten it.
    void forgotten(std::uint64_t nodeid);
    // The lease that a node belongs to, revoked or not; nullptr for control's nodes.
    std::shared_ptr<const LeaseRoot> root_above(std::uint64_t nodeid) const;
    // Closes unused descriptors when the process runs out of them.
    void give_back_descriptors();
    // Whether a user may have the process keep a descriptor that it has just opened: the last ones
    // are a reserve for root and for control. Closes unused descriptors if not; then ask again.
    bool spares(std::uint32_t uid, int fd);
    // The same of a descriptor that is not open yet.
    bool spares_another(std::uint32_t uid);
    // Drops objects that were kept for too long. Call it now and then.
    void tidy();
    void clear();

    std::uint32_t cache_timeout_ms() const noexcept { return cache_timeout_ms_; }
    Validity validity(Freshness freshness) const noexcept;
    // Notes that changes of at least one source are pushed.
    void set_any_pushed() noexcept { any_pushed_.store(true, std::memory_order_release); }
    // Call this before a look at a node, so that later changes of it are pushed. Does nothing
    // without pushes.
    void hold(std::uint64_t nodeid, NodeTable::Held what) {
        if (any_pushed_.load(std::memory_order_acquire)) {
            nodes_.hold(nodeid, what);
        }
    }
    // Directories were made, removed or renamed. Cached ones may have left their root, or lack a
    // part that a layer has now, so all are dropped.
    void directories_changed() { cache_.clear(); }
    NodeTable& nodes() noexcept { return nodes_; }
    const NodeTable& nodes() const noexcept { return nodes_; }
    OpenFiles& files() noexcept { return files_; }
    Orphans& orphans() noexcept { return orphans_; }
    OpenDirectories& listings() noexcept { return listings_; }
    ParkedListings& parked() noexcept { return parked_; }
    // Of merged directories, for each source of several layers.
    const std::shared_ptr<Snapshots>& snapshots() const noexcept { return snapshots_; }

    struct Statistics {
        std::size_t leased = 0;  // directories and indexes
        std::size_t indexes = 0;
        std::size_t index_bytes = 0;
        std::size_t entries = 0;  // described by control
        std::size_t entry_bytes = 0;
        std::size_t nodes = 0;
        std::size_t node_bytes = 0;
        std::size_t directories = 0;  // in the cache
        std::size_t directory_limit = 0;
        std::size_t listings = 0;
        Snapshots::Statistics snapshots;
        OpenFiles::Statistics files;
    };
    Statistics statistics() const;

  private:
    struct Climb;
    bool fresh(const Directory& directory, std::int64_t now) const noexcept;
    int climb(std::uint64_t nodeid, std::int64_t now, Climb& into) const;
    int descend(const Climb& climb, Directory& into);
    template <typename Try>
    int despite_renames(Try attempt) const;
    int directory_now(std::uint64_t nodeid, ThreadCounts& counts,
                      std::shared_ptr<const Directory>& into);
    int orphan_directory(std::uint64_t nodeid, std::shared_ptr<const Directory>& into) const;
    template <typename Try>
    int at_links(std::uint64_t nodeid, const NodeView& node, ThreadCounts& counts, Try attempt);
    template <typename Try>
    int at_now(std::uint64_t nodeid, ThreadCounts& counts, Try attempt);
    template <typename Try>
    int at(std::uint64_t nodeid, ThreadCounts& counts, Try attempt);
    template <typename Try>
    int with_descriptors(Try attempt);

    const std::uint32_t cache_timeout_ms_;
    const Validity validity_;
    const std::int64_t trust_ms_;
    const std::size_t descriptors_;  // RLIMIT_NOFILE
    SessionMemory& session_;
    NodeTable& nodes_;
    DirectoryCache cache_;
    OpenFiles files_;
    Orphans orphans_;
    OpenDirectories listings_;
    ParkedListings parked_;
    const std::shared_ptr<Snapshots> snapshots_ = std::make_shared<Snapshots>();
    std::atomic<bool> any_{false};
    std::atomic<bool> any_overlays_{false};
    std::atomic<bool> any_pushed_{false};
    std::atomic<std::uint64_t> revokes_{0};
    std::size_t nodes_peak_ = 0;  // tidy()'s
    std::uint64_t refused_device_ = ~std::uint64_t{0};
    mutable std::shared_mutex renames_lock_;  // outermost
    std::atomic<std::uint64_t> renames_{0};
    mutable std::shared_mutex roots_lock_;
    std::unordered_map<std::uint64_t, std::shared_ptr<const LeaseRoot>> roots_;  // by nodeid
};

class Mirrors::Renaming {
  public:
    explicit Renaming(Mirrors& mirrors) : mirrors_(mirrors), guard_(mirrors.renames_lock_) {}
    Renaming(const Renaming&) = delete;
    Renaming& operator=(const Renaming&) = delete;
    ~Renaming() { mirrors_.renames_.fetch_add(1, std::memory_order_acq_rel); }

  private:
    Mirrors& mirrors_;
    const std::unique_lock<std::shared_mutex> guard_;
};

}  // namespace zc
