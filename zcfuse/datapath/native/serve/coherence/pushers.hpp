// Pushes changes to the kernel, from a few threads with a queue each.
//
// INVAL_ENTRY waits in the kernel for a LOOKUP or READDIRPLUS of the same directory. So all pushes
// for one directory go to one queue, and a slow directory delays only that queue. A queue beyond
// its limit is dropped; then forget_everything() makes the kernel ask again for everything, which
// costs less than so many pushes. Pushes that a writer waits for have a queue of their own.
//
// Rules that a push follows (each was needed to leave nothing stale):
//   - a name: INVAL_ENTRY, then INVAL_INODE of its directory, whose listing the kernel may have.
//   - If INVAL_INODE fails with ENOENT for a node that we know, the reply that introduces the node
//     is still in flight. INVAL_ENTRY of each of its names waits for that reply; then a second
//     INVAL_INODE finds the node.
//   - the listing of a directory: INVAL_ENTRY in it waits for a listing in flight, and INVAL_INODE
//     drops what that brought. The next pass begins with a look at the directory
//     (LeasedNodes::name_changes).
//   - a name on or above a foreign mount is left out: INVAL_ENTRY would detach that mount.
//
// Threads: any thread calls post() and statistics(); each pusher calls run(). Lock order: a queue's
// lock is innermost, and a pusher sends outside of it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "serve/coherence/mounts_below.hpp"
#include "serve/latency.hpp"
#include "serve/negotiation.hpp"
#include "serve/nodes/leased_nodes.hpp"
#include "transport/channel.hpp"

namespace zc {

// A change to push: the kernel must ask again for these. Node id 0 means no node.
struct Push {
    std::uint64_t directory = 0;
    std::string name;  // in `directory`
    std::uint64_t node = 0;
    bool pages = false;  // of `node`, beside its attributes
    Clock::time_point since{};
    // Called after the push. A push that has it is never dropped, and waits for no other kind.
    std::function<void()> then{};
};

class Pushers {
  public:
    // The last queue is for pushes with `then`.
    static constexpr std::size_t kQueues = 5;
    // The limit of pushes in one queue; beyond it a new epoch costs less.
    static constexpr std::size_t kMostWaiting = 16'384;

    Pushers(LeasedNodes& leased_nodes, const Negotiation& negotiation);
    Pushers(const Pushers&) = delete;
    Pushers& operator=(const Pushers&) = delete;

    // Before any thread runs.
    void attach(std::shared_ptr<const Channel> channel, std::string mountpoint);
    void post(Push push);
    // Makes the kernel ask again for every name and node, now, from the calling thread.
    void forget_everything();
    // Makes the kernel ask again for the attributes and pages of files that no directory of ours
    // holds: those that a described tree names, whose changes are not watched.
    void forget_named_files();
    // Serves queue `number` until stop().
    void run(std::size_t number);
    void stop();
    // Waits until every push posted before is sent; false at the deadline or after stop().
    bool drain(std::chrono::steady_clock::time_point deadline);

    struct Statistics {
        std::uint64_t pushes = 0;
        std::uint64_t epochs = 0;
        std::uint64_t left_out = 0;  // names on or above another mount
        std::size_t longest_queue = 0;
        std::uint64_t latency_sum_ns = 0;
        std::uint64_t latency_worst_ns = 0;
    };
    Statistics statistics() const;

  private:
    struct Queue {
        std::mutex lock;
        std::condition_variable changed;
        std::vector<Push> waiting;
        bool busy = false;
        std::size_t longest = 0;
    };

    void push_one(const Push& push);
    void push_node(std::uint64_t nodeid, bool pages);
    int invalidate_entry(std::uint64_t directory, std::string_view name);
    int invalidate_inode(std::uint64_t nodeid, bool pages) const;
    void wait_for_listings(std::uint64_t directory) const;
    void note(Clock::time_point since);

    LeasedNodes& nodes_;
    const Negotiation& negotiation_;
    std::shared_ptr<const Channel> channel_;
    std::unique_ptr<MountsBelow> mounts_;
    std::vector<std::unique_ptr<Queue>> queues_;
    std::atomic<bool> stopping_{false};
    std::atomic<std::uint64_t> pushes_{0};
    std::atomic<std::uint64_t> epochs_{0};
    std::atomic<std::uint64_t> left_out_{0};
    std::atomic<std::uint64_t> latency_sum_ns_{0};
    std::atomic<std::uint64_t> latency_worst_ns_{0};
};

}  // namespace zc
