// Maps a nodeid to the source that answers for it: a lease says "node N shows this source", with
// all nodes below.
//
// A node is an identity and the names that lookups used for it (table.hpp). A request reaches a
// node through the open directory above it and a name there. The source compares the identity and
// answers ESTALE if it differs. kUpcall leaves a request to control: the node is control's,
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
//   - a client's rename: it is under way until the new name is noted. A request that finds nothing
//     under a name meanwhile waits for it, though not for long, and looks again (despite_renames).
//   - a FORGET: the node is gone and the request gets ESTALE. A correct kernel never does this.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
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
#include "serve/nodes/closer.hpp"
#include "serve/nodes/directories.hpp"
#include "serve/nodes/open_directories.hpp"
#include "serve/nodes/open_files.hpp"
#include "serve/nodes/orphans.hpp"
#include "serve/nodes/parked_listings.hpp"
#include "serve/nodes/renames.hpp"
#include "serve/nodes/table.hpp"
#include "serve/nodes/user_descriptors.hpp"
#include "serve/sources/snapshots.hpp"
#include "serve/sources/union_directory.hpp"
#include "serve/surviving/surviving_state.hpp"
#include "sys/files.hpp"

namespace zc {

// For how long the kernel may cache an answer.
struct Validity {
    std::uint64_t seconds = 0;
    std::uint32_t nanoseconds = 0;
};
// 136 years. The kernel clamps values beyond its clock's range.
inline constexpr std::uint64_t kUnlimitedSeconds = 0xFFFF'FFFF;

class LeasedNodes {
  public:
    // Borrows the state.
    LeasedNodes(LeaseTable& leases, const Config& config, SurvivingState& surviving);

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
    struct Path {
        std::uint64_t root = 0;  // nodeid of the leased directory
        std::string path;        // "a/b"; "" for the directory itself
    };
    std::optional<Path> place_of(std::uint64_t nodeid) const;

    // Opens a leased directory to look up names in it. `counts` are the calling thread's.
    int directory(std::uint64_t nodeid, ThreadCounts& counts,
                  std::shared_ptr<const Directory>& into);
    // The same as a user sees it.
    int directory_for(std::uint64_t nodeid, std::uint32_t uid, ThreadCounts& counts,
                      std::shared_ptr<const Directory>& into);
    // The same of a directory in which a client changes names: in a union it is copied up first.
    int directory_to_change(std::uint64_t nodeid, ThreadCounts& counts,
                            std::shared_ptr<const Directory>& into);
    // Keeps an open directory for later requests, unless directories were closed since then.
    std::uint64_t directories_closed() const noexcept { return cache_.generation(); }
    void keep(std::shared_ptr<const Directory> directory, std::uint64_t directories_closed) {
        cache_.put(std::move(directory), directories_closed);
    }
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
    // `watches`: whether the names in a directory are watched, which opens it again if need be. The
    // freshness is then that of `pushed`.
    using Watches = std::function<bool(std::shared_ptr<const Directory>&)>;
    int list(std::uint64_t nodeid, std::uint32_t uid, ThreadCounts& counts, const Watches& watches,
             OpenDirectory& into, std::vector<struct ::statx>& versions, Freshness& freshness);
    int filesystem_status(std::uint64_t nodeid, struct ::statvfs& into) const;
    // Opens the node itself with flags of open(2), to change it. Works only in a real directory's
    // tree.
    int hold(std::uint64_t nodeid, int flags, ThreadCounts& counts, sys::UniqueFd& into,
             struct ::statx& status);
    // Before a client changes a node itself: copies it up in a union. kUpcall where clients may
    // change nothing.
    int prepare_change(std::uint64_t nodeid, ThreadCounts& counts, CopiedBytes bytes);
    bool is_changeable(std::uint64_t nodeid) const;
    // Whether a node's source asks another process or machine.
    bool is_far(std::uint64_t nodeid) const;
    // Whether a node's source is `pushed`, or `strict`.
    bool is_pushed(std::uint64_t nodeid) const;
    bool is_strict(std::uint64_t nodeid) const;
    // Whether a look at a name in a directory, or at a node itself (nullptr), waits for no disk:
    // the kernel has the name in its cache.
    bool is_remembered(std::uint64_t nodeid, const char* name) const;
    // Whether control or memory alone answers: no source is on a disk.
    bool needs_no_disk() const noexcept { return !any_disk_.load(std::memory_order_acquire); }
    bool is_in_union(std::uint64_t nodeid) const;
    // Whether a lease names files in directories of others, and whether any does.
    static bool names_files(const LeaseRoot& root) noexcept;
    bool any_names_files() const;
    // 0, or the -errno with which opening an existing file for writing is refused.
    int refused_write(std::uint64_t nodeid) const;
    // Where a directory of a pool has its next file, or all new files for a time (Placements).
    struct Placed {
        std::optional<std::string> name;
        std::uint32_t branch = 0;
        std::optional<std::int64_t> valid_ms;
    };
    // False: the node is no directory of a pool, or gone.
    bool place(std::uint64_t nodeid, Placed placed);
    // A file that was copied up is another file from then on, with another node: the kernel keeps
    // one backing file an inode, and who has the old one open reads on. A change by the old node
    // reaches the copy; an open of it fails with ESTALE, on which the kernel looks the name up.
    void note_copy(const Identity& before, const Copied& copy);
    // Notes the copies of an earlier process, and returns those that it began and that may have no
    // name. Call it once the directories are leased, before requests are served.
    std::vector<CopyMemory::Record> inherit_copies();
    // Notes those that the tree shows, and takes them out of `begun`.
    void note_shown(std::vector<CopyMemory::Record>& begun, ThreadCounts& counts);
    bool is_copied(std::uint64_t nodeid) const;
    bool is_metacopy_node(std::uint64_t nodeid) const;
    // The identity of `nodeid` where that leads to the copy `found`, and else `found`.
    Identity known_as(std::uint64_t nodeid, const Identity& found) const;
    // What a copy was before, where the kernel knows the node of that: the file of a lower layer, a
    // metacopy of it.
    std::vector<Identity> originals_of(const Identity& copy) const;
    // Counts copies: a lookup that saw another number before may have found the old file.
    std::uint64_t copies() const noexcept { return copies_.load(std::memory_order_acquire); }
    // Looks at a file that a client just made in a directory; `into` gets the identity of the table
    // of nodes.
    static int made(const Directory& directory, int file, const char* name, Found& into);
    // Held from before a rename until the table of nodes has the new name.
    class Renaming;

    // 0 or kUpcall.
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
    // Limits each user's files to a share of the descriptors that are free now.
    void share_descriptors() noexcept;
    // The users' shares, control's part included.
    const std::shared_ptr<UserDescriptors>& users() const noexcept { return users_; }
    // Drops objects that were kept for too long. Call it now and then.
    void tidy();
    void clear();

    std::uint32_t cache_timeout_ms() const noexcept { return cache_timeout_ms_; }
    // For attributes; of names that are watched, that of `pushed`.
    Validity validity(Freshness freshness) const noexcept;
    // Notes that changes of at least one source are pushed; call it before that source says so.
    void set_any_pushed(Freshness how) noexcept {
        any_pushed_.store(true, std::memory_order_release);
        if (how == Freshness::strict) {
            any_strict_.store(true, std::memory_order_release);
        }
    }
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
    // Counts changes of names that are pushed, before their push. A listing that was opened at
    // another count may lack them, and no further pass may begin or go on with it.
    std::uint64_t name_changes() const noexcept {
        return name_changes_.load(std::memory_order_acquire);
    }
    void note_name_change() noexcept { name_changes_.fetch_add(1, std::memory_order_acq_rel); }
    NodeTable& nodes() noexcept { return nodes_; }
    const NodeTable& nodes() const noexcept { return nodes_; }
    OpenFiles& files() noexcept { return files_; }
    Closer& closer() noexcept { return closer_; }
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
    Identity present(std::uint64_t nodeid, const Identity& identity) const;
    void stand_for(std::uint64_t known, const Identity& before, const Identity& copy);
    bool shows(std::uint64_t nodeid, const Identity& file, ThreadCounts& counts);
    bool closes_slowly(std::uint64_t nodeid, const FileLease& lease) const;
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
    // Whether a file that is only kept may still be open to a client, which sent no message.
    const bool silent_opens_;
    const std::shared_ptr<UserDescriptors> users_;
    SessionMemory& session_;
    CopyMemory& made_copies_;
    NodeTable& nodes_;
    DirectoryCache cache_;
    Closer closer_;
    OpenFiles files_;
    Orphans orphans_;
    OpenDirectories listings_;
    ParkedListings parked_;
    const std::shared_ptr<Snapshots> snapshots_ = std::make_shared<Snapshots>();
    std::atomic<bool> any_{false};
    std::atomic<bool> any_overlays_{false};
    std::atomic<bool> any_far_{false};
    std::atomic<bool> any_disk_{false};
    std::atomic<bool> any_pushed_{false};
    std::atomic<bool> any_strict_{false};
    std::atomic<std::uint64_t> revokes_{0};
    std::atomic<std::uint64_t> copies_{0};
    std::atomic<std::uint64_t> name_changes_{0};
    mutable std::mutex copied_lock_;                      // innermost
    std::unordered_map<std::uint64_t, Identity> copied_;  // of the copy, by the old file's nodeid
    // The same the other way, by nodeid.
    using Originals = std::map<std::uint64_t, Identity>;
    std::unordered_map<Identity, Originals, IdentityHash> originals_;
    std::size_t nodes_peak_ = 0;  // tidy()'s
    std::uint64_t refused_device_ = ~std::uint64_t{0};
    mutable Renames under_way_;  // outermost
    std::atomic<std::uint64_t> renames_{0};
    mutable std::shared_mutex roots_lock_;
    std::unordered_map<std::uint64_t, std::shared_ptr<const LeaseRoot>> roots_;  // by nodeid
};

class LeasedNodes::Renaming {
  public:
    explicit Renaming(LeasedNodes& leased_nodes)
        : nodes_(leased_nodes), begun_(leased_nodes.under_way_.begin()) {}
    Renaming(const Renaming&) = delete;
    Renaming& operator=(const Renaming&) = delete;
    ~Renaming() {
        if (begun_) {
            nodes_.renames_.fetch_add(1, std::memory_order_acq_rel);
            nodes_.under_way_.end();
        }
    }
    // False: another rename takes too long.
    explicit operator bool() const noexcept { return begun_; }

  private:
    LeasedNodes& nodes_;
    const bool begun_;
};

}  // namespace zc
