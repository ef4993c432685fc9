// The files below leased directories that clients have open or closed recently. Each node has one
// FileLease, with one descriptor and one backing id for all opens.
//
// The kernel demands one mode and one backing id of an inode from its first open to its last
// release, so a second open takes the existing lease. An unused lease stays for a while, which
// saves the next open from registering the file again. It does not stay long: it keeps a deleted
// file's space allocated.
//
// Threads: any. Lock order: this lock, then the LeaseTable's, that of UserDescriptors or the
// Closer's. Leases are destroyed outside of them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "serve/lease.hpp"
#include "serve/nodes/closer.hpp"
#include "serve/nodes/user_descriptors.hpp"

namespace zc {

class OpenFiles {
  public:
    using Lease = std::shared_ptr<const FileLease>;
    using File = std::shared_ptr<const sys::UniqueFd>;

    // Whether the close of a node's files may wait for another process or machine.
    using ClosesSlowly = std::function<bool(std::uint64_t nodeid, const FileLease& lease)>;

    OpenFiles(LeaseTable& leases, std::size_t kept_limit, UserDescriptors& users, Closer& closer,
              ClosesSlowly closes_slowly)
        : leases_(leases),
          kept_limit_(kept_limit),
          users_(users),
          closer_(closer),
          closes_slowly_(std::move(closes_slowly)) {}
    OpenFiles(const OpenFiles&) = delete;
    OpenFiles& operator=(const OpenFiles&) = delete;

    // The lease of a node, whether it is in use or only kept; nullptr without a lease.
    Lease find(std::uint64_t nodeid) const;
    // The lease of a node that a client has open now.
    Lease in_use(std::uint64_t nodeid) const;
    // Whether a user may open a node. One that is open counts for the user who opened it first.
    bool admits(std::uint32_t uid, std::uint64_t nodeid) const;
    // Counts an open that an earlier process answered. `backing`: how the kernel has the file open;
    // nullptr: cached. The file itself is opened again when a request needs it.
    void inherit(std::uint64_t nodeid, std::uint32_t uid, bool writes,
                 std::shared_ptr<const BackingId> backing);
    // Whether any file is to be opened again: one load.
    bool any_inherited() const noexcept { return inherited_.load(std::memory_order_acquire) > 0; }
    // How an inherited file that was not opened again is open; nullopt for all others.
    struct Inherited {
        std::shared_ptr<const BackingId> backing;
        bool written = false;
    };
    std::optional<Inherited> inherited(std::uint64_t nodeid) const;
    // Gives an inherited file its lease, and its writer if it has one.
    void complete(std::uint64_t nodeid, Lease lease, File writer);

    // Counts an open and returns the lease that serves it; nullptr without a lease.
    Lease open(std::uint64_t nodeid, std::uint32_t uid);
    // Do not keep a lease with a poor path: the next open may get a better one.
    enum class Keep : bool { no, yes };
    // Counts an open and returns its lease: `lease`, or another thread's earlier one.
    Lease open_with(std::uint64_t nodeid, Lease lease, Keep keep, std::uint32_t uid);
    // `for_writing`: the open that ends was one.
    void release(std::uint64_t nodeid, std::int64_t now_ms, bool for_writing = false);

    // While clients have a node open for writing, all changes go through one descriptor.
    // begin_writing() counts such an open of an open node; the first one's file stays.
    void begin_writing(std::uint64_t nodeid, File file);
    File writer(std::uint64_t nodeid) const;
    // Whether there is any: one load.
    bool any_written() const noexcept { return written_.load(std::memory_order_acquire) > 0; }
    // Also of an inherited file whose writer is not open again.
    bool is_written(std::uint64_t nodeid) const;

    // For files that were opened without a message, so that no release follows. keep():
    // keeps a lease, unless there is another, which it returns. used(): the lease was used now.
    Lease keep(std::uint64_t nodeid, Lease lease, std::int64_t now_ms);
    void used(std::uint64_t nodeid, std::int64_t now_ms);

    // Each drops unused leases: of one node, those unused since `until_ms`, all.
    void drop(std::uint64_t nodeid);
    void drop_unused(std::int64_t until_ms);
    void drop_unused();
    // Drops leases of files without a name, to free their space and inode numbers.
    void drop_deleted();
    // Drops all leases, even those in use.
    void clear();

    struct Statistics {
        std::size_t used = 0;
        std::size_t kept = 0;
    };
    Statistics statistics() const;

  private:
    struct Entry {
        Lease lease;
        std::uint64_t opens = 0;
        std::uint32_t uid = 0;        // while it is open: whom it counts for
        std::size_t descriptors = 0;  // that it counts as
        bool keep = true;
        bool slow = false;       // to close
        bool inherited = false;  // the lease has only the backing id
        std::uint64_t writers = 0;
        File writer;
        std::int64_t unused_since = 0;
        std::list<std::uint64_t>::iterator kept;  // valid while opens is 0
    };
    void fill(std::uint64_t nodeid, Entry& entry, Lease& lease, bool slow);
    void take(std::unordered_map<std::uint64_t, Entry>::iterator at, Closing& into);
    void count_open(Entry& entry, std::uint32_t uid);
    void count_writer(Entry& entry);
    void begin_use(Entry& entry, std::uint32_t uid);
    void end_use(const Entry& entry);
    void take_oldest_of_too_many(Closing& into);

    LeaseTable& leases_;
    const std::size_t kept_limit_;
    UserDescriptors& users_;
    Closer& closer_;
    const ClosesSlowly closes_slowly_;
    std::atomic<std::size_t> written_{0};    // entries that are open for writing
    std::atomic<std::size_t> inherited_{0};  // entries that are to be opened again
    mutable std::mutex lock_;
    std::unordered_map<std::uint64_t, Entry> entries_;
    std::list<std::uint64_t> kept_;  // nodeids, the longest unused first
};

}  // namespace zc
