// Watches the filesystems below leased directories, and pushes each change to the kernel, which
// may then keep names, attributes, listings and links without a time limit.
//
// An event names a directory, a name in it and a file by file handles. The watcher opens a handle
// and looks at the file, to get the identity in the node table. A file that is gone by then needs
// no push: the event of its name follows in the queue, or has been read.
//
// Two orders ensure that no change gets lost between a look and its reply:
//   - a node enters the table before the look that the reply shows (ops: count, then look again),
//     so a later event finds it.
//   - watching a filesystem begins before its lease counts as pushed.
//
// A change of a directory in a union's layer may change everything merged below it, under the same
// nodes. Such a change makes the kernel ask again for everything, once for all events read
// together.
//
// A fence is a name that sync() makes in a directory that only this process writes to. Events come
// in order, so the fence's event follows those of all earlier changes in the same queue.
//
// A daemon that may not watch filesystems watches the names in directories instead (WatchedNames).
//
// Threads: one thread calls run(), any thread watch() and sync(); but sync() waits, so serving
// threads must not call it. Lock order: watched_lock_ and fence_lock_ are innermost.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "serve/coherence/pushers.hpp"
#include "serve/coherence/read_leases.hpp"
#include "serve/coherence/watched_names.hpp"
#include "serve/nodes/leased_nodes.hpp"
#include "serve/reasons.hpp"
#include "serve/sources/source.hpp"
#include "sys/fanotify.hpp"

namespace zc {

class Coherence {
  public:
    // `fence_directory`: only this process writes to it; "" for no fence.
    Coherence(LeasedNodes& leased_nodes, const Negotiation& negotiation,
              std::string fence_directory);
    Coherence(const Coherence&) = delete;
    Coherence& operator=(const Coherence&) = delete;

    // Watches the filesystems of a lease. If it returns `none`, the lease's changes are pushed from
    // then on, as `how` says: `pushed` or `strict`. Refusals are counted.
    Reason watch(const std::shared_ptr<const LeaseRoot>& root, Freshness how);
    // Reads events until stop(). A signal must interrupt the thread then.
    void run();
    void stop();
    // Changes were missed: makes the kernel ask again for everything. From the thread of run().
    void recover();
    // Waits until each change that returned before is pushed; false at the end of the time, after
    // stop(), or without a fence.
    bool sync(std::chrono::milliseconds wait);

    Pushers& pushers() noexcept { return pushers_; }
    // On files of sources that are `strict`.
    ReadLeases& read_leases() noexcept { return *read_leases_; }
    // Where watching a filesystem is not permitted.
    WatchedNames& names() noexcept { return names_; }

    struct Statistics {
        std::uint64_t events = 0;
        std::uint64_t unknown = 0;    // of files that the kernel does not know from us
        std::uint64_t coalesced = 0;  // of what the kernel has not asked for since the last push
        std::uint64_t overflows = 0;
        std::size_t filesystems = 0;
        std::size_t directories = 0;  // whose names are watched
        int schedule_error = 0;       // -errno of SCHED_FIFO; 0 where the watcher has it
        std::array<std::uint64_t, kReasons> refused{};  // leases, by Reason
        Pushers::Statistics pushed;
        ReadLeases::Statistics leases;
    };
    Statistics statistics() const;

  private:
    struct Watched {
        std::shared_ptr<const LeaseRoot> root;
        std::uint32_t layer = 0;
        int fd = -1;        // the source's
        Identity identity;  // of that directory
    };
    struct Filesystem {
        std::uint64_t id = 0;
        sys::UniqueFd mount;
        std::vector<Watched> directories;
    };

    Reason watch_names(const LeaseRoot& root);
    Reason try_watch(const std::shared_ptr<const LeaseRoot>& root, Freshness how);
    int add(const std::shared_ptr<const LeaseRoot>& root, const Source::Real& real);
    int watch_new(Filesystem& filesystem, int directory);
    void read_changes(std::span<std::byte> buffer);
    void read_names(std::span<std::byte> buffer);
    void note(const sys::Change& change, Clock::time_point now);
    void note(const WatchedNames::Change& change, Clock::time_point now);
    void push(const sys::Change& change, const Filesystem& filesystem, Clock::time_point now);
    bool is_fence(const sys::Change& change);
    void pass_fence(std::string_view name, std::uint64_t& seen);
    static bool reshapes(const sys::Change& change, const Filesystem& filesystem);
    bool reshapes(const WatchedNames::Change& change, std::uint64_t directory) const;
    bool parts_changed(std::uint64_t directory, std::string_view name) const;
    bool is_merged_directory(std::uint64_t directory, std::string_view name) const;
    static bool has_layers(const Filesystem& filesystem);
    static bool may_be_whiteout(const sys::Change& change, const Filesystem& filesystem);
    void settle();
    void forget_everything();
    bool must_push(const sys::Change& change, std::uint64_t nodeid);
    std::vector<std::uint64_t> nodes_of(const Filesystem& filesystem,
                                        struct ::file_handle* handle) const;
    void add_node(const Watched& watched, int fd, const struct ::statx& status,
                  std::vector<std::uint64_t>& into) const;
    std::uint64_t merged_node(const Watched& watched, int fd) const;

    LeasedNodes& nodes_;
    Pushers pushers_;
    const std::shared_ptr<ReadLeases> read_leases_;
    sys::ChangeQueue queue_;
    WatchedNames names_;
    int queue_error_ = 0;
    std::atomic<bool> stopping_{false};
    bool reshaped_ = false;  // since the last settle(); the reading thread's

    mutable std::shared_mutex watched_lock_;
    std::vector<std::unique_ptr<Filesystem>> watched_;

    const std::string fence_path_;
    sys::UniqueFd fence_;
    alignas(struct ::file_handle) std::array<std::byte, 160> fence_handle_{};
    std::mutex fence_lock_;
    std::condition_variable fence_changed_;
    std::uint64_t fences_asked_ = 0;
    // In each of the two queues.
    std::uint64_t fences_seen_ = 0;
    std::uint64_t fences_named_ = 0;
    bool fence_in_changes_ = false;
    bool fence_in_names_ = false;

    std::atomic<std::uint64_t> events_{0};
    std::atomic<std::uint64_t> unknown_{0};
    std::atomic<std::uint64_t> coalesced_{0};
    std::atomic<std::uint64_t> overflows_{0};
    std::atomic<int> schedule_error_{0};
    std::array<std::atomic<std::uint64_t>, kReasons> refused_{};
};

}  // namespace zc
