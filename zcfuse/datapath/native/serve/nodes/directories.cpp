#include "serve/nodes/directories.hpp"

#include <algorithm>
#include <mutex>
#include <utility>

namespace zc {

std::shared_ptr<const Directory> DirectoryCache::find(std::uint64_t nodeid) const {
    const std::shared_lock guard(lock_);
    const auto found = slots_.find(nodeid);
    if (found == slots_.end()) {
        return nullptr;
    }
    const auto& directory = ring_[found->second];
    if (!directory->used.load(std::memory_order_relaxed)) {
        directory->used.store(true, std::memory_order_relaxed);
    }
    return directory;
}

void DirectoryCache::put(std::shared_ptr<const Directory> directory, std::uint64_t generation) {
    std::shared_ptr<const Directory> dropped;
    const std::unique_lock guard(lock_);
    if (generation != generation_.load(std::memory_order_relaxed)) {
        return;
    }
    const auto known = slots_.find(directory->nodeid);
    const auto slot = known != slots_.end() ? known->second : free_slot();
    slots_[directory->nodeid] = slot;
    dropped = std::exchange(ring_[slot], std::move(directory));
    if (dropped && dropped->nodeid != ring_[slot]->nodeid) {
        slots_.erase(dropped->nodeid);
    }
}

std::size_t DirectoryCache::capacity() const {
    const std::shared_lock guard(lock_);
    return capacity_;
}

void DirectoryCache::limit(std::size_t capacity) {
    std::vector<std::shared_ptr<const Directory>> dropped;
    const std::unique_lock guard(lock_);
    capacity_ = std::min(capacity_, capacity);
    if (ring_.size() > capacity_) {
        dropped.swap(ring_);
        slots_.clear();
        hand_ = 0;
    }
}

std::size_t DirectoryCache::free_slot() {
    if (ring_.size() < capacity_) {
        ring_.emplace_back();
        return ring_.size() - 1;
    }
    for (;;) {
        const auto slot = hand_;
        hand_ = (hand_ + 1) % ring_.size();
        if (!ring_[slot] || !ring_[slot]->used.exchange(false, std::memory_order_relaxed)) {
            return slot;
        }
    }
}

void DirectoryCache::drop(std::uint64_t nodeid) {
    std::shared_ptr<const Directory> dropped;
    const std::unique_lock guard(lock_);
    if (const auto node = slots_.extract(nodeid); !node.empty()) {
        dropped = std::move(ring_[node.mapped()]);
    }
}

void DirectoryCache::clear() {
    std::vector<std::shared_ptr<const Directory>> dropped;
    {
        const std::unique_lock guard(lock_);
        generation_.fetch_add(1, std::memory_order_release);
        slots_.clear();
        dropped.swap(ring_);
        hand_ = 0;
    }
}

std::size_t DirectoryCache::size() const {
    const std::shared_lock guard(lock_);
    return slots_.size();
}

}  // namespace zc
