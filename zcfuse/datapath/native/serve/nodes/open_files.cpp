#include "serve/nodes/open_files.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "sys/files.hpp"

namespace zc {

namespace {

// Descriptors that a lease alone keeps open. A source keeps an archive, or bytes in memory, open
// whoever reads them. An inherited lease has no files yet, and gets some.
std::size_t descriptors_of(const FileLease& lease) {
    const auto& extents = lease.extents();
    if (extents.empty()) {
        return 1;
    }
    if (extents.size() == 1) {
        return extents.front().file.use_count() <= 1 ? 1 : 0;
    }
    std::map<std::uint64_t, long> uses;
    for (const auto& extent : extents) {
        ++uses[extent.id];
    }
    std::set<std::uint64_t> files;
    for (const auto& extent : extents) {
        if (extent.file.use_count() <= uses[extent.id]) {
            files.insert(extent.id);
        }
    }
    return files.size();
}

}  // namespace

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
    if (users_.admits(uid)) {
        return true;
    }
    const std::lock_guard guard(lock_);
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
    const bool slow = closes_slowly_(nodeid, *lease);
    const std::lock_guard guard(lock_);
    const auto [at, fresh] = entries_.try_emplace(nodeid);
    if (fresh) {
        at->second.lease = std::move(lease);
        at->second.slow = slow;
        at->second.opens = 1;
        begin_use(at->second, uid);
        at->second.keep = keep == Keep::yes;
        leases_.put(nodeid, at->second.lease);
    } else {
        fill(nodeid, at->second, lease, slow);
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
    if (writes) {
        count_writer(entry);
    }
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
void OpenFiles::fill(std::uint64_t nodeid, Entry& entry, Lease& lease, bool slow) {
    if (entry.inherited) {
        entry.lease.swap(lease);
        entry.slow = slow;
        entry.inherited = false;
        inherited_.fetch_sub(1, std::memory_order_acq_rel);
        leases_.put(nodeid, entry.lease);
    }
}

void OpenFiles::complete(std::uint64_t nodeid, Lease lease, File writer) {
    const bool slow = closes_slowly_(nodeid, *lease);
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found == entries_.end() || found->second.opens == 0) {
        return;
    }
    fill(nodeid, found->second, lease, slow);
    if (writer && found->second.writers > 0 && !found->second.writer) {
        found->second.writer.swap(writer);
    }
}

void OpenFiles::count_writer(Entry& entry) {
    if (entry.writers++ == 0) {
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
    entry.descriptors = descriptors_of(*entry.lease);
    users_.take(uid, entry.descriptors);
}

void OpenFiles::end_use(const Entry& entry) {
    users_.give(entry.uid, entry.descriptors);
}

void OpenFiles::release(std::uint64_t nodeid, std::int64_t now_ms, bool for_writing) {
    Closing closing(closer_);
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found == entries_.end() || found->second.opens == 0) {
        return;
    }
    auto& entry = found->second;
    if (for_writing && entry.writers > 0 && --entry.writers == 0) {
        written_.fetch_sub(1, std::memory_order_acq_rel);
        closing.add(std::move(entry.writer), entry.slow);
    }
    if (--entry.opens > 0) {
        return;
    }
    end_use(entry);
    entry.unused_since = now_ms;
    entry.kept = kept_.insert(kept_.end(), nodeid);
    if (entry.keep) {
        take_oldest_of_too_many(closing);
    } else {
        take(found, closing);
    }
}

void OpenFiles::begin_writing(std::uint64_t nodeid, File file) {
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found == entries_.end() || found->second.opens == 0) {
        return;
    }
    count_writer(found->second);
    if (!found->second.writer) {
        found->second.writer.swap(file);
    }
}

bool OpenFiles::is_written(std::uint64_t nodeid) const {
    if (!any_written()) {
        return false;
    }
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    return found != entries_.end() && found->second.writers > 0;
}

OpenFiles::File OpenFiles::writer(std::uint64_t nodeid) const {
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    return found == entries_.end() ? nullptr : found->second.writer;
}

OpenFiles::Lease OpenFiles::keep(std::uint64_t nodeid, Lease lease, std::int64_t now_ms) {
    const bool slow = closes_slowly_(nodeid, *lease);
    Closing closing(closer_);
    const std::lock_guard guard(lock_);
    const auto [at, fresh] = entries_.try_emplace(nodeid);
    if (!fresh) {
        fill(nodeid, at->second, lease, slow);
        closing.add(std::move(lease), slow);
        return at->second.lease;
    }
    at->second.lease = lease;
    at->second.slow = slow;
    at->second.unused_since = now_ms;
    at->second.kept = kept_.insert(kept_.end(), nodeid);
    leases_.put(nodeid, lease);
    take_oldest_of_too_many(closing);
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

void OpenFiles::take_oldest_of_too_many(Closing& into) {
    if (kept_.size() > kept_limit_) {
        take(entries_.find(kept_.front()), into);
    }
}

void OpenFiles::take(std::unordered_map<std::uint64_t, Entry>::iterator at, Closing& into) {
    leases_.take(at->first);
    inherited_.fetch_sub(at->second.inherited ? 1 : 0, std::memory_order_acq_rel);
    into.add(std::move(at->second.lease), at->second.slow);
    kept_.erase(at->second.kept);
    entries_.erase(at);
}

void OpenFiles::drop(std::uint64_t nodeid) {
    Closing closing(closer_);
    const std::lock_guard guard(lock_);
    const auto found = entries_.find(nodeid);
    if (found != entries_.end() && found->second.opens == 0) {
        take(found, closing);
    }
}

void OpenFiles::drop_unused(std::int64_t until_ms) {
    Closing closing(closer_);
    const std::lock_guard guard(lock_);
    while (!kept_.empty()) {
        const auto oldest = entries_.find(kept_.front());
        if (oldest->second.unused_since > until_ms) {
            return;
        }
        take(oldest, closing);
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
    Closing closing(closer_);
    const std::lock_guard guard(lock_);
    for (auto& [nodeid, entry] : entries_) {
        leases_.take(nodeid);
        if (entry.opens > 0) {
            end_use(entry);
        }
        closing.add(std::move(entry.lease), entry.slow);
        closing.add(std::move(entry.writer), entry.slow);
    }
    entries_.clear();
    written_.store(0, std::memory_order_release);
    inherited_.store(0, std::memory_order_release);
    kept_.clear();
}

OpenFiles::Statistics OpenFiles::statistics() const {
    const std::lock_guard guard(lock_);
    return {entries_.size() - kept_.size(), kept_.size()};
}

}  // namespace zc
