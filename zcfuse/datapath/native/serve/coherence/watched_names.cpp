#include "serve/coherence/watched_names.hpp"

#include <algorithm>
#include <cerrno>

namespace zc {

bool WatchedNames::watch_fence(int directory) {
    fence_ = queue_.is_open() ? queue_.watch(directory) : -1;
    return fence_ >= 0;
}

bool WatchedNames::watches(const Directory& directory) {
    {
        const std::shared_lock guard(lock_);
        if (const auto found = watches_.find(directory.nodeid); found != watches_.end()) {
            return found->second != kRefused;
        }
    }
    const int descriptor = directory.at->descriptor();
    // The reader waits for this lock, so no event of the watch comes before its node.
    const std::unique_lock guard(lock_);
    const auto [found, is_new] = watches_.try_emplace(directory.nodeid, kRefused);
    if (is_new) {
        const int watch = descriptor >= 0 ? queue_.watch(descriptor) : -EBADF;
        if (watch < 0) {
            refused_.fetch_add(1, std::memory_order_relaxed);
        } else {
            found->second = watch;
            nodes_[watch].push_back(directory.nodeid);
        }
    }
    return found->second != kRefused;
}

void WatchedNames::forget(std::uint64_t nodeid) {
    const std::unique_lock guard(lock_);
    const auto watch = watches_.extract(nodeid);
    if (!watch || watch.mapped() == kRefused) {
        return;
    }
    const auto found = nodes_.find(watch.mapped());
    std::erase(found->second, nodeid);
    if (found->second.empty()) {
        queue_.remove(found->first);
        nodes_.erase(found);
    }
}

std::vector<std::uint64_t> WatchedNames::nodes_of(const Change& change) const {
    const std::shared_lock guard(lock_);
    const auto found = nodes_.find(change.watch);
    return found != nodes_.end() ? found->second : std::vector<std::uint64_t>{};
}

std::size_t WatchedNames::size() const {
    const std::shared_lock guard(lock_);
    return nodes_.size();
}

}  // namespace zc
