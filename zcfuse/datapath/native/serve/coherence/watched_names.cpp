#include "serve/coherence/watched_names.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "sys/syscalls.hpp"

namespace zc {

bool WatchedNames::watch_fence(int directory) {
    fence_ = queue_.is_open() ? queue_.watch(directory) : -1;
    return fence_ >= 0;
}

bool WatchedNames::watches(std::shared_ptr<const Directory>& directory) {
    const auto changes = changes_.load(std::memory_order_acquire);
    if (directory->watched.load(std::memory_order_acquire) == changes) {
        return true;
    }
    if (directory->personal || is_refused(directory->nodeid)) {
        return false;
    }
    auto opened = directory;
    if (directory->root->source->kind() == Source::Kind::directory) {
        if (!watch(directory->nodeid, *directory->at, false)) {
            return false;
        }
    } else {
        const auto closed = leased_nodes_.directories_closed();
        auto again = std::make_shared<Directory>();
        again->root = directory->root;
        again->nodeid = directory->nodeid;
        again->checked = sys::coarse_milliseconds();
        if (!watch_way(*directory, again->at)) {
            return false;
        }
        opened = std::move(again);
        leased_nodes_.keep(opened, closed);
    }
    opened->watched.store(changes, std::memory_order_release);
    directory = std::move(opened);
    return true;
}

// Watches the directories on the way to a union's directory, itself last, and opens each after
// those above it are watched.
bool WatchedNames::watch_way(const Directory& directory, SourceDirectory::Ref& into) {
    struct Step {
        std::uint64_t nodeid = 0;
        NodeView node;
    };
    std::vector<Step> way;
    auto at = directory.nodeid;
    for (; at != directory.root->nodeid; at = way.back().node.link.parent) {
        auto node = leased_nodes_.nodes().find(at);
        if (!node || node->is_root || node->revoked || way.size() >= kDepthLimit ||
            is_refused(at)) {
            return false;
        }
        way.push_back({at, std::move(*node)});
    }
    into = directory.root->source->root();
    if (!watch(at, *into, true)) {
        return false;
    }
    for (auto step = way.rbegin(); step != way.rend(); ++step) {
        SourceDirectory::Ref next;
        Found found;
        if (into->enter(step->node.link.name, next) != 0 || next->find("", found) != 0) {
            return false;
        }
        if (found.identity != directory.within(step->node.identity) ||
            !watch(step->nodeid, *next, true)) {
            return false;
        }
        into = std::move(next);
    }
    return true;
}

bool WatchedNames::is_refused(std::uint64_t nodeid) const {
    const std::shared_lock guard(lock_);
    const auto found = watches_.find(nodeid);
    return found != watches_.end() && found->second.refused;
}

bool WatchedNames::watch(std::uint64_t nodeid, const SourceDirectory& at, bool merged) {
    std::vector<int> real;
    at.add_real(real);
    // The reader waits for this lock, so no event of the watch comes before its node.
    const std::unique_lock guard(lock_);
    auto& watches = watches_[nodeid];
    for (const int directory : real) {
        const int number = watches.refused ? -EBADF : queue_.watch(directory, merged);
        if (number < 0) {
            return refuse(watches);
        }
        auto& numbers = watches.numbers;
        if (std::find(numbers.begin(), numbers.end(), number) == numbers.end()) {
            numbers.push_back(number);
            nodes_[number].push_back(nodeid);
        }
    }
    return !watches.refused;
}

bool WatchedNames::refuse(Watches& watches) {
    refused_.fetch_add(watches.refused ? 0 : 1, std::memory_order_relaxed);
    watches.refused = true;
    return false;
}

void WatchedNames::forget(std::uint64_t nodeid) {
    const std::unique_lock guard(lock_);
    const auto watches = watches_.extract(nodeid);
    if (!watches) {
        return;
    }
    for (const int number : watches.mapped().numbers) {
        const auto found = nodes_.find(number);
        std::erase(found->second, nodeid);
        if (found->second.empty()) {
            queue_.remove(number);
            nodes_.erase(found);
        }
    }
}

void WatchedNames::end(int watch) {
    const std::unique_lock guard(lock_);
    const auto ended = nodes_.extract(watch);
    for (const auto nodeid : ended ? ended.mapped() : std::vector<std::uint64_t>{}) {
        std::erase(watches_[nodeid].numbers, watch);
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
