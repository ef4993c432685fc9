#include "serve/nodes/open_files.hpp"

#include <sys/stat.h>

#include <limits>
#include <utility>

#include "sys/files.hpp"

namespace zc {

OpenFiles::Lease OpenFiles::find(std::uint64_t nodeid) const {
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    return found == entries_.end() ? nullptr : found->second.lease;
}

OpenFiles::Lease OpenFiles::in_use(std::uint64_t nodeid) const {
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    return found == entries_.end() || found->second.opens == 0 ? nullptr : found->second.lease;
}

OpenFiles::Lease OpenFiles::open(std::uint64_t nodeid) {
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found == entries_.end()) {
        return nullptr;
    }
    count_open(found->second);
    return found->second.lease;
}

OpenFiles::Lease OpenFiles::open_with(std::uint64_t nodeid, Lease lease, Keep keep) {
    const std::lock_guard guard(lock_);
    const auto [at, fresh] = entries_.try_emplace(nodeid);
    if (fresh) {
        at->second.lease = std::move(lease);
        at->second.opens = 1;
        at->second.keep = keep == Keep::yes;
        leases_.put(nodeid, at->second.lease);
    } else {
        count_open(at->second);
    }
    return at->second.lease;
}

void OpenFiles::count_open(Entry& entry) {
    if (entry.opens++ == 0) {
        kept_.erase(entry.kept);
    }
}

void OpenFiles::release(std::uint64_t nodeid, std::int64_t now_ms) {
    Lease dropped;
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found == entries_.end() || found->second.opens == 0 || --found->second.opens > 0) {
        return;
    }
    found->second.unused_since = now_ms;
    found->second.kept = kept_.insert(kept_.end(), nodeid);
    if (!found->second.keep) {
        dropped = take(found);
    } else if (kept_.size() > kept_limit_) {
        dropped = take(entries_.find(kept_.front()));
    }
}

OpenFiles::Lease OpenFiles::take(std::unordered_map<std::uint64_t, Entry>::iterator at) {
    auto lease = std::move(at->second.lease);
    leases_.take(at->first);
    kept_.erase(at->second.kept);
    entries_.erase(at);
    return lease;
}

void OpenFiles::drop(std::uint64_t nodeid) {
    Lease dropped;
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found != entries_.end() && found->second.opens == 0) {
        dropped = take(found);
    }
}

void OpenFiles::drop_unused(std::int64_t until_ms) {
    std::vector<Lease> dropped;
    const std::lock_guard guard(lock_);
    while (!kept_.empty()) {
        const auto oldest = entries_.find(kept_.front());
        if (oldest->second.unused_since > until_ms) {
            return;
        }
        dropped.push_back(take(oldest));
    }
}

void OpenFiles::drop_unused() {
    drop_unused(std::numeric_limits<std::int64_t>::max());
}

void OpenFiles::drop_deleted() {
    std::vector<std::pair<std::uint64_t, Lease>> unused;
    {
        const std::lock_guard guard(lock_);
        unused.reserve(kept_.size());
        for (const auto nodeid : kept_) {
            unused.emplace_back(nodeid, entries_.find(nodeid)->second.lease);
        }
    }
    for (auto& [nodeid, lease] : unused) {
        struct ::statx status {};
        const auto* file = lease->whole_file();
        if (file != nullptr && sys::status_of(file->get(), "", true, status) == 0 &&
            status.stx_nlink == 0) {
            drop(nodeid);
        }
        lease.reset();
    }
}

void OpenFiles::clear() {
    std::unordered_map<std::uint64_t, Entry> dropped;
    const std::lock_guard guard(lock_);
    for (const auto& [nodeid, entry] : entries_) {
        leases_.take(nodeid);
    }
    dropped.swap(entries_);
    kept_.clear();
}

OpenFiles::Statistics OpenFiles::statistics() const {
    const std::lock_guard guard(lock_);
    return {entries_.size() - kept_.size(), kept_.size()};
}

}  // namespace zc
