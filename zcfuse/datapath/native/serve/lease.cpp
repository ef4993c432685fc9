#include "serve/lease.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "serve/windows.hpp"
#include "sys/syscalls.hpp"

namespace zc {

std::uint64_t next_file_id() noexcept {
    static std::atomic<std::uint64_t> last{0};
    return ++last;
}

BackingId::~BackingId() {
    sys::backing_close(session_->fd(), id_);
}

FileLease::FileLease(std::vector<Extent> extents, std::shared_ptr<const BackingId> backing,
                     std::shared_ptr<WindowCache> windows) noexcept
    : extents_(std::move(extents)), backing_(std::move(backing)), windows_(std::move(windows)) {}

FileLease::~FileLease() {
    if (windows_) {
        for (const auto& extent : extents_) {
            windows_->forget(extent.id);
        }
    }
}

void FileLease::slices(std::uint64_t offset, std::size_t size, std::vector<Slice>& into) const {
    into.clear();
    for (const auto& extent : extents_) {
        if (size == 0) {
            return;
        }
        if (offset >= extent.length) {
            offset -= extent.length;
            continue;
        }
        const auto n =
            static_cast<std::size_t>(std::min<std::uint64_t>(size, extent.length - offset));
        into.push_back({extent.file->get(), extent.id, extent.offset + offset, n});
        offset = 0;
        size -= n;
    }
}

const sys::UniqueFd* FileLease::whole_file() const noexcept {
    const bool whole = extents_.size() == 1 && extents_.front().offset == 0 &&
                       extents_.front().length == kWholeFile;
    return whole ? extents_.front().file.get() : nullptr;
}

std::shared_ptr<const FileLease> LeaseTable::find(std::uint64_t nodeid) const {
    const std::shared_lock guard(lock_);
    const auto found = leases_.find(nodeid);
    return found == leases_.end() ? nullptr : found->second;
}

std::shared_ptr<const FileLease> LeaseTable::put(std::uint64_t nodeid,
                                                 std::shared_ptr<const FileLease> lease) {
    const std::unique_lock guard(lock_);
    return std::exchange(leases_[nodeid], std::move(lease));
}

std::shared_ptr<const FileLease> LeaseTable::take(std::uint64_t nodeid) {
    const std::unique_lock guard(lock_);
    const auto node = leases_.extract(nodeid);
    return node.empty() ? nullptr : node.mapped();
}

std::size_t LeaseTable::size() const {
    const std::shared_lock guard(lock_);
    return leases_.size();
}

void LeaseTable::clear() {
    std::unordered_map<std::uint64_t, std::shared_ptr<const FileLease>> dropped;
    {
        const std::unique_lock guard(lock_);
        dropped.swap(leases_);
    }
}

}  // namespace zc
