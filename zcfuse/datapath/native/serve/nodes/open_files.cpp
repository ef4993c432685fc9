#include "serve/nodes/open_files.hpp"

#include <sys/stat.h>

#include <limits>
#include <utility>

#include "sys/files.hpp"

namespace zc {

OpenFiles::Lease OpenFiles::find(std::uint64_t nodeid) const {
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    return found == entries_.end() || found->second.inherited ? nullptr : found->second.lease;
}

OpenFiles::Lease OpenFiles::in_use(std::uint64_t nodeid) const {
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    const bool has = found != entries_.end() && found->second.opens > 0 && !found->second.inherited;
    return has ? found->second.lease : nullptr;
}

bool OpenFiles::admits(std::uint32_t uid, std::uint64_t nodeid) const {
    if (uid == 0) {
        return true;
    }
    const std::lock_guard guard(lock_);
    const auto user = open_by_.find(uid);
    if (user == open_by_.end() || user->second < per_user_) {
        return true;
    }
    const auto found = entries_.find(nodeid);
    return found != entries_.end() && found->second.opens > 0;
}

OpenFiles::Lease OpenFiles::open(std::uint64_t nodeid, std::uint32_t uid) {
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found == entries_.end() || found->second.inherited) {
        return nullptr;
    }
    count_open(found->second, uid);
    return found->second.lease;
}

OpenFiles::Lease OpenFiles::open_with(std::uint64_t nodeid, Lease lease, Keep keep,
                                      std::uint32_t uid) {
    const std::lock_guard guard(lock_);
    const auto [at, fresh] = entries_.try_emplace(nodeid);
    if (fresh) {
        at->second.lease = std::move(lease);
        at->second.opens = 1;
        begin_use(at->second, uid);
        at->second.keep = keep == Keep::yes;
        leases_.put(nodeid, at->second.lease);
    } else {
        fill(nodeid, at->second, lease);
        count_open(at->second, uid);
    }
    return at->second.lease;
}

void OpenFiles::inherit(std::uint64_t nodeid, std::uint32_t uid, bool writes,
                        std::shared_ptr<const BackingId> backing) {
    const std::lock_guard guard(lock_);
    auto& entry = entries_[nodeid];
    if (entry.opens == 0) {
        entry.lease =
            std::make_shared<const FileLease>(std::vector<Extent>{}, std::move(backing), nullptr);
        entry.inherited = true;
        entry.keep = false;
        inherited_.fetch_add(1, std::memory_order_acq_rel);
        begin_use(entry, uid);
    }
    ++entry.opens;
    entry.writers += writes ? 1 : 0;
}

std::optional<OpenFiles::Inherited> OpenFiles::inherited(std::uint64_t nodeid) const {
    if (!any_inherited()) {
        return std::nullopt;
    }
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found == entries_.end() || !found->second.inherited) {
        return std::nullopt;
    }
    return Inherited{found->second.lease->backing(), found->second.writers > 0};
}

// Swaps the lease with that of an inherited entry, which the caller drops outside of the lock.
void OpenFiles::fill(std::uint64_t nodeid, Entry& entry, Lease& lease) {
    if (entry.inherited) {
        entry.lease.swap(lease);
        entry.inherited = false;
        inherited_.fetch_sub(1, std::memory_order_acq_rel);
        leases_.put(nodeid, entry.lease);
    }
}

void OpenFiles::complete(std::uint64_t nodeid, Lease lease, File writer) {
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found == entries_.end() || found->second.opens == 0) {
        return;
    }
    fill(nodeid, found->second, lease);
    if (writer && found->second.writers > 0 && !found->second.writer) {
        found->second.writer.swap(writer);
        written_.fetch_add(1, std::memory_order_acq_rel);
    }
}

void OpenFiles::count_open(Entry& entry, std::uint32_t uid) {
    if (entry.opens++ == 0) {
        kept_.erase(entry.kept);
        begin_use(entry, uid);
    }
}

void OpenFiles::begin_use(Entry& entry, std::uint32_t uid) {
    entry.uid = uid;
    ++open_by_[uid];
}

void OpenFiles::end_use(const Entry& entry) {
    if (const auto user = open_by_.find(entry.uid); --user->second == 0) {
        open_by_.erase(user);
    }
}

void OpenFiles::release(std::uint64_t nodeid, std::int64_t now_ms, bool for_writing) {
    Lease dropped;
    File closed;  // outside of the lock
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found == entries_.end() || found->second.opens == 0) {
        return;
    }
    auto& entry = found->second;
    if (for_writing && entry.writers > 0 && --entry.writers == 0) {
        closed = std::move(entry.writer);
        written_.fetch_sub(closed ? 1 : 0, std::memory_order_acq_rel);
    }
    if (--entry.opens > 0) {
        return;
    }
    end_use(entry);
    entry.unused_since = now_ms;
    entry.kept = kept_.insert(kept_.end(), nodeid);
    dropped = entry.keep ? take_oldest_of_too_many() : take(found);
}

void OpenFiles::begin_writing(std::uint64_t nodeid, File file) {
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found == entries_.end() || found->second.opens == 0) {
        return;
    }
    ++found->second.writers;
    if (!found->second.writer) {
        found->second.writer.swap(file);
        written_.fetch_add(1, std::memory_order_acq_rel);
    }
}

OpenFiles::File OpenFiles::writer(std::uint64_t nodeid) const {
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    return found == entries_.end() ? nullptr : found->second.writer;
}

OpenFiles::Lease OpenFiles::keep(std::uint64_t nodeid, Lease lease, std::int64_t now_ms) {
    Lease dropped;
    const std::lock_guard guard(lock_);
    const auto [at, fresh] = entries_.try_emplace(nodeid);
    if (!fresh) {
        fill(nodeid, at->second, lease);
        dropped = std::move(lease);
        return at->second.lease;
    }
    at->second.lease = lease;
    at->second.unused_since = now_ms;
    at->second.kept = kept_.insert(kept_.end(), nodeid);
    leases_.put(nodeid, lease);
    dropped = take_oldest_of_too_many();
    return lease;
}

void OpenFiles::used(std::uint64_t nodeid, std::int64_t now_ms) {
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found != entries_.end() && found->second.opens == 0) {
        found->second.unused_since = now_ms;
        kept_.splice(kept_.end(), kept_, found->second.kept);
    }
}

OpenFiles::Lease OpenFiles::take_oldest_of_too_many() {
    return kept_.size() > kept_limit_ ? take(entries_.find(kept_.front())) : nullptr;
}

OpenFiles::Lease OpenFiles::take(std::unordered_map<std::uint64_t, Entry>::iterator at) {
    auto lease = std::move(at->second.lease);
    leases_.take(at->first);
    inherited_.fetch_sub(at->second.inherited ? 1 : 0, std::memory_order_acq_rel);
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
    written_.store(0, std::memory_order_release);
    inherited_.store(0, std::memory_order_release);
    kept_.clear();
    open_by_.clear();
}

OpenFiles::Statistics OpenFiles::statistics() const {
    const std::lock_guard guard(lock_);
    return {entries_.size() - kept_.size(), kept_.size()};
}

}  // namespace zc
