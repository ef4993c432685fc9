#include "serve/coherence/pushers.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "abi/fuse_nodes.hpp"
#include "sys/threads.hpp"
#include "transport/notifier.hpp"

namespace zc {

namespace {

constexpr std::size_t kUrgent = Pushers::kQueues - 1;
constexpr std::int64_t kAttributesOnly = -1;
constexpr std::int64_t kFromTheStart = 0;

}  // namespace

Pushers::Pushers(LeasedNodes& leased_nodes, const Negotiation& negotiation)
    : nodes_(leased_nodes), negotiation_(negotiation) {
    for (std::size_t i = 0; i < kQueues; ++i) {
        queues_.push_back(std::make_unique<Queue>());
    }
}

void Pushers::attach(std::shared_ptr<const Channel> channel, std::string mountpoint) {
    channel_ = std::move(channel);
    mounts_ = std::make_unique<MountsBelow>(std::move(mountpoint));
}

void Pushers::post(Push push) {
    const auto number = push.directory != 0 ? push.directory : push.node;
    auto& queue = *queues_[push.then ? kUrgent : number % kUrgent];
    bool full = false;
    {
        const std::lock_guard guard(queue.lock);
        // Serving threads post urgent ones, and must not wait for the kernel.
        full = queue.waiting.size() >= kMostWaiting && !push.then;
        if (!full) {
            queue.waiting.push_back(std::move(push));
            queue.longest = std::max(queue.longest, queue.waiting.size());
        } else {
            queue.waiting.clear();
        }
    }
    queue.changed.notify_all();
    if (full) {
        forget_everything();
    }
}

void Pushers::run(std::size_t number) {
    if (number == kUrgent) {
        sys::set_policy(sys::thread_id(), sys::Policy::fifo);  // not behind readers of the mount
    }
    auto& queue = *queues_[number];
    std::vector<Push> batch;
    for (;;) {
        {
            std::unique_lock guard(queue.lock);
            queue.busy = false;
            queue.changed.notify_all();
            queue.changed.wait(guard, [&] { return stopping_ || !queue.waiting.empty(); });
            if (stopping_) {
                return;
            }
            batch.swap(queue.waiting);
            queue.busy = true;
        }
        for (const auto& push : batch) {
            push_one(push);
            if (push.then) {
                push.then();
            }
        }
        batch.clear();
    }
}

void Pushers::stop() {
    stopping_ = true;
    for (const auto& queue : queues_) {
        const std::lock_guard guard(queue->lock);
        queue->changed.notify_all();
    }
}

bool Pushers::drain(std::chrono::steady_clock::time_point deadline) {
    for (const auto& queue : queues_) {
        std::unique_lock guard(queue->lock);
        const auto is_empty = [&] { return queue->waiting.empty() && !queue->busy; };
        if (!queue->changed.wait_until(guard, deadline, [&] { return stopping_ || is_empty(); }) ||
            stopping_) {
            return false;
        }
    }
    return true;
}

void Pushers::push_one(const Push& push) {
    if (push.directory != 0 && !push.name.empty()) {
        invalidate_entry(push.directory, push.name);
    }
    if (push.directory != 0) {
        push_node(push.directory, true);
    }
    if (push.node != 0) {
        push_node(push.node, push.pages);
    }
    note(push.since);
}

void Pushers::push_node(std::uint64_t nodeid, bool pages) {
    if (invalidate_inode(nodeid, pages) != -ENOENT) {
        return;
    }
    const auto links = nodes_.nodes().links(nodeid);
    for (const auto& link : links) {
        invalidate_entry(link.parent, link.name);
    }
    if (!links.empty()) {
        invalidate_inode(nodeid, pages);
    }
}

int Pushers::invalidate_entry(std::uint64_t directory, std::string_view name) {
    if (mounts_->any()) {
        const auto place = nodes_.place_of(directory);
        if (!place || mounts_->is_above_one(place->path, name)) {
            left_out_.fetch_add(1, std::memory_order_relaxed);
            return 0;
        }
    }
    return Notifier::invalidate_entry(*channel_, directory, std::as_bytes(std::span(name)));
}

int Pushers::invalidate_inode(std::uint64_t nodeid, bool pages) const {
    return Notifier::invalidate_inode(*channel_, nodeid, pages ? kFromTheStart : kAttributesOnly,
                                      0);
}

// An epoch drops names only: attributes, listings and pages of nodes in use need their own push. A
// directory's time of change tells the kernel that a listing is old which was in flight meanwhile,
// but that of a merged directory does not.
void Pushers::forget_everything() {
    nodes_.note_name_change();
    epochs_.fetch_add(1, std::memory_order_relaxed);
    const bool has_epochs = negotiation_.outcome().minor >= abi::kMinorWithIncEpoch;
    const bool by_epoch = has_epochs && !mounts_->any();
    if (by_epoch) {
        Notifier::new_epoch(*channel_);
    }
    for (const auto nodeid : nodes_.nodes().all()) {
        if (!by_epoch) {
            for (const auto& link : nodes_.nodes().links(nodeid)) {
                invalidate_entry(link.parent, link.name);
            }
        }
        if (nodes_.is_in_union(nodeid)) {
            wait_for_listings(nodeid);
        }
        push_node(nodeid, true);
    }
}

void Pushers::forget_named_files() {
    if (!nodes_.any_names_files()) {
        return;
    }
    for (const auto nodeid : nodes_.nodes().all()) {
        const auto root = nodes_.root_above(nodeid);
        if (root && LeasedNodes::names_files(*root)) {
            push_node(nodeid, true);
        }
    }
}

// The kernel takes the directory's lock to look for the name, and a listing in flight has it until
// the kernel has cached what it brings. No file has this name.
void Pushers::wait_for_listings(std::uint64_t directory) const {
    static constexpr std::string_view kNoName = "/";
    Notifier::invalidate_entry(*channel_, directory, std::as_bytes(std::span(kNoName)));
}

void Pushers::note(Clock::time_point since) {
    const auto took = static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - since).count());
    pushes_.fetch_add(1, std::memory_order_relaxed);
    latency_sum_ns_.fetch_add(took, std::memory_order_relaxed);
    auto worst = latency_worst_ns_.load(std::memory_order_relaxed);
    while (took > worst && !latency_worst_ns_.compare_exchange_weak(worst, took)) {
    }
}

Pushers::Statistics Pushers::statistics() const {
    Statistics found{pushes_, epochs_, left_out_, 0, latency_sum_ns_, latency_worst_ns_};
    for (const auto& queue : queues_) {
        const std::lock_guard guard(queue->lock);
        found.longest_queue = std::max(found.longest_queue, queue->longest);
    }
    return found;
}

}  // namespace zc
