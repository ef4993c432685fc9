// Directory leases: "node N mirrors this directory", or shows these merged. From a nodeid to the
// file that it stands for, beneath the lease's root, over no symbolic link and no other mount, and
// never to another file:
// what is opened is compared with the node's identity, and ESTALE is the answer where it differs.
//
// Three things may come of an attempt: 0, a -errno for the client, or kHandUp: the node is not
// ours to answer for (control's, revoked, or behind another mount).
//
// Threads: any. Lock order: an OpenDirectory's, then each of the tables' locks by itself;
// roots_lock_ is innermost. Who may race with whom:
//   - an outsider who renames, deletes or swaps for a symbolic link: openat2 follows none, and the
//     identity is compared behind the open. A directory that is cached was beneath the root no
//     longer ago than the cache timeout, one second at most.
//   - a revoke: what looked at the mark before it was set is answered by the lease; revoke() in
//     DataPath waits for those, but not for long, and who answers later tells the kernel to forget
//     it (ops::serve). Nothing found before enters the cache behind it (generation).
//   - a FORGET: the node is gone and the request gets ESTALE, which only a broken kernel sees.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "serve/config.hpp"
#include "serve/ledger.hpp"
#include "serve/nodes/directories.hpp"
#include "serve/nodes/open_directories.hpp"
#include "serve/nodes/open_files.hpp"
#include "serve/nodes/parked_listings.hpp"
#include "serve/nodes/table.hpp"
#include "sys/files.hpp"

namespace zc {

inline constexpr int kHandUp = 1;
// Renames outside can leave remembered parents that form a ring; no real path is as deep as this.
inline constexpr std::size_t kDepthLimit = 65'536;
// Of what is kept open, whatever the limit of descriptors.
inline constexpr std::size_t kLeastDescriptors = 8;

// For how long the kernel may believe what it is told.
struct Validity {
    std::uint64_t seconds = 0;
    std::uint32_t nanoseconds = 0;
};
// 136 years; the kernel takes what is more than its clock can count for the most that it can.
inline constexpr std::uint64_t kUnlimitedSeconds = 0xFFFF'FFFF;

class Mirrors {
  public:
    Mirrors(LeaseTable& leases, const Config& config);

    // Whether there is any lease at all: one load, for what comes with every request.
    bool none() const noexcept { return !any_.load(std::memory_order_acquire); }

    // Leases a directory but for `kept`, paths below it; the descriptor is copied. Throws
    // std::system_error.
    void lease(std::uint64_t nodeid, int root_fd, std::set<std::string, std::less<>> kept = {});
    // Leases a node that shows several directories as one, the topmost first, with the marks of
    // overlayfs and of OCI images in them. `sees_trusted`: this process can see `trusted.` marks.
    void lease_union(std::uint64_t nodeid, const std::vector<int>& layer_fds, bool sees_trusted);
    // Returns false for a node that is not leased. What is open stays so.
    bool revoke(std::uint64_t nodeid);
    // Forgets a lease altogether, of a directory that the kernel has forgotten. Requests about what
    // was below it are handed up.
    void drop(std::uint64_t nodeid);
    // How many revokes there were. What was begun before one and is answered behind it must not
    // stay with the kernel.
    std::uint64_t revokes() const noexcept { return revokes_.load(std::memory_order_acquire); }

    struct Description {
        std::uint64_t nodeid = 0;
        std::string name;
        std::uint64_t device = 0;  // major << 32 | minor
        Identity identity;         // birth 0 where the filesystem has no times of birth
        std::uint32_t layer = 0;
    };
    // The node and those above it, the leased directory first; empty for one that is not known.
    // Its end, and theirs, is handed up from now on.
    std::vector<Description> describe(std::uint64_t nodeid);

    // By which names a node was found last, from the leased directory down; nothing for one that is
    // not known. Changes nothing, unlike describe().
    struct Place {
        std::uint64_t root = 0;  // nodeid of the leased directory
        std::string path;        // "a/b"; "" for the directory itself
    };
    std::optional<Place> place_of(std::uint64_t nodeid) const;

    // A directory of ours to look at names in. The counts are those of the calling thread.
    int directory(std::uint64_t nodeid, ThreadCounts& counts,
                  std::shared_ptr<const Directory>& into);
    // Opens the node itself and says what it is; of a merged directory the topmost part.
    int open(std::uint64_t nodeid, int flags, ThreadCounts& counts, sys::UniqueFd& into,
             struct ::statx& status);
    // What the node is now, by a name of its own or as an open file.
    int status(std::uint64_t nodeid, ThreadCounts& counts, struct ::statx& status);
    // Opens all parts of a directory to list them, and says what each is.
    int open_parts(std::uint64_t nodeid, int flags, ThreadCounts& counts, std::vector<Part>& into,
                   std::vector<struct ::statx>& statuses);
    // What a name in a directory is now, as clients see it; kHandUp where another mount begins
    // (`status` is then what lies there) and for what control must answer.
    struct Found {
        struct ::statx status {};
        Identity identity;
    };
    int find(const Directory& directory, const char* name, Found& into);
    // What a name in a directory of a layer is now; kHandUp where another mount begins.
    static int look_at(const Layer& layer, int directory, const char* name, struct ::statx& status);
    // The inode number that is shown for a file.
    static std::uint64_t shown_ino(const LeaseRoot& root, const struct ::statx& status) noexcept;
    // Whether there is a lease on a union: one load.
    bool any_unions() const noexcept { return any_unions_.load(std::memory_order_acquire); }
    bool in_union(std::uint64_t nodeid) const;
    // 0 or kHandUp.
    int leased(const NodeView& node) const;
    int leased(std::uint64_t nodeid) const;
    // Whether control keeps the name in a directory for itself.
    bool is_kept(const LeaseRoot& root, std::uint64_t parent, std::string_view name) const;
    // The device of our own mount, which no listing shows. Before there are threads.
    void refuse_device(std::uint32_t major, std::uint32_t minor) noexcept;
    bool is_refused(const struct ::statx& status) const noexcept;

    std::shared_ptr<LeaseRoot> root_of(std::uint64_t nodeid) const;
    // The kernel knows nothing of the node any more.
    void forgotten(std::uint64_t nodeid);
    // The lease that a node belongs to, revoked or not; nullptr for one that is not ours.
    std::shared_ptr<LeaseRoot> root_above(std::uint64_t nodeid) const;
    // Gives descriptors back when there are no more to be had.
    void give_back_descriptors();
    // To be called now and then: lets go of what was kept for too long.
    void tidy();
    void clear();

    std::uint32_t cache_timeout_ms() const noexcept { return cache_timeout_ms_; }
    Validity validity() const noexcept { return validity_; }
    NodeTable& nodes() noexcept { return nodes_; }
    const NodeTable& nodes() const noexcept { return nodes_; }
    OpenFiles& files() noexcept { return files_; }
    OpenDirectories& listings() noexcept { return listings_; }
    ParkedListings& parked() noexcept { return parked_; }

    struct Statistics {
        std::size_t leased = 0;  // directories
        std::size_t nodes = 0;
        std::size_t node_bytes = 0;
        std::size_t directories = 0;  // in the cache
        std::size_t directory_limit = 0;
        std::size_t listings = 0;
        OpenFiles::Statistics files;
    };
    Statistics statistics() const;

  private:
    struct Climb;
    bool fresh(const Directory& directory, std::int64_t now) const noexcept;
    int climb(std::uint64_t nodeid, std::int64_t now, Climb& into) const;
    int descend(const Climb& climb, sys::UniqueFd& into) const;
    static Identity identity_of(const LeaseRoot& root, std::uint32_t layer,
                                const struct ::statx& status, int directory, const char* name);
    static void show(const Directory& directory, std::size_t parts,
                     struct ::statx& status) noexcept;
    void add_root(std::shared_ptr<LeaseRoot> root);
    int descend_merged(const Climb& climb, Directory& into) const;
    int check(const LeaseRoot& root, int directory, const char* name, const Identity& wanted,
              struct ::statx& status) const;
    int open_directory(std::uint64_t nodeid, int flags, ThreadCounts& counts, sys::UniqueFd& into,
                       struct ::statx& status);
    template <typename Try>
    int by_any_link(std::uint64_t nodeid, const NodeView& node, ThreadCounts& counts, Try attempt);

    const std::uint32_t cache_timeout_ms_;
    const Validity validity_;
    const std::int64_t trust_ms_;
    NodeTable nodes_;
    DirectoryCache cache_;
    OpenFiles files_;
    OpenDirectories listings_;
    ParkedListings parked_;
    std::atomic<bool> any_{false};
    std::atomic<bool> any_unions_{false};
    std::atomic<std::uint64_t> revokes_{0};
    std::size_t nodes_peak_ = 0;  // tidy()'s
    std::uint64_t refused_device_ = ~std::uint64_t{0};
    mutable std::shared_mutex roots_lock_;
    std::unordered_map<std::uint64_t, std::shared_ptr<LeaseRoot>> roots_;  // by nodeid
    std::atomic<std::uint32_t> last_root_{0};
};

}  // namespace zc
