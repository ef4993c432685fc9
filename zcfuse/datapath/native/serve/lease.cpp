#include "serve/lease.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "serve/surviving/handle_memory.hpp"
#include "serve/windows.hpp"
#include "sys/files.hpp"
#include "sys/syscalls.hpp"

namespace zc {

namespace {

// Larger than any request, each of which reads it from the start.
constexpr off_t kHoleBytes = off_t{1} << 30;

}  // namespace

std::uint64_t next_file_id() noexcept {
    static std::atomic<std::uint64_t> last{0};
    return ++last;
}

bool is_whole_file(std::span<const Extent> extents) noexcept {
    return extents.size() == 1 && !extents.front().hole && extents.front().offset == 0 &&
           extents.front().length == kWholeFile;
}

std::shared_ptr<const sys::UniqueFd> hole_file() {
    static const auto made = []() -> std::shared_ptr<const sys::UniqueFd> {
        auto file = std::make_shared<sys::UniqueFd>(
            ::memfd_create("zcfuse-hole", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        if (!*file || ::ftruncate(file->get(), kHoleBytes) < 0) {
            return nullptr;
        }
        // Nobody can put a byte into it, or make it end sooner, by whatever descriptor.
        ::fcntl(file->get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
        return file;
    }();
    return made;
}

BackingId::BackingId(std::shared_ptr<const DeviceChannel> session, HandleMemory& memory, int id)
    : session_(std::move(session)), memory_(memory), id_(id) {
    memory_.register_backing(id);
}

// Noted until it is closed: a successor that closes it a second time does no harm, but nobody
// closes one that is not noted.
BackingId::~BackingId() {
    sys::backing_close(session_->fd(), id_);
    memory_.unregister_backing(id_);
}

FileLease::FileLease(std::vector<Extent> extents, std::shared_ptr<const BackingId> backing,
                     std::shared_ptr<WindowCache> windows, std::optional<Mode> mode,
                     std::shared_ptr<const OpenStatus> shown,
                     std::shared_ptr<const Presence> presence) noexcept
    : extents_(std::move(extents)),
      backing_(std::move(backing)),
      windows_(std::move(windows)),
      mode_(mode),
      shown_(std::move(shown)),
      presence_(std::move(presence)) {
    std::uint64_t start = 0;
    for (auto& extent : extents_) {
        extent.start = start;
        start += std::min(extent.length, kWholeFile - start);
    }
}

FileLease::~FileLease() {
    if (windows_) {
        std::uint64_t last = 0;
        for (const auto& extent : extents_) {
            if (extent.id != last) {  // those of one file mostly lie together
                windows_->forget(extent.id);
            }
            last = extent.id;
        }
    }
}

void FileLease::slices(std::uint64_t offset, std::size_t size, std::vector<Slice>& into) const {
    into.clear();
    auto extent = std::partition_point(extents_.begin(), extents_.end(), [&](const Extent& one) {
        return one.start <= offset && one.length <= offset - one.start;  // it ends before
    });
    for (; size > 0 && extent != extents_.end(); ++extent) {
        const auto skipped = offset - extent->start;
        const auto n =
            static_cast<std::size_t>(std::min<std::uint64_t>(size, extent->length - skipped));
        if (n > 0) {
            into.push_back(
                {extent->file->get(), extent->id, extent->hole ? 0 : extent->offset + skipped, n});
        }
        offset += n;
        size -= n;
    }
}

bool FileLease::all_files(bool (*is)(int) noexcept) const noexcept {
    std::uint64_t last = 0;
    return std::all_of(extents_.begin(), extents_.end(), [&](const Extent& extent) {
        const bool again = extent.id == last;  // those of one file mostly lie together
        last = extent.id;
        return again || extent.hole || is(extent.file->get());
    });
}

bool FileLease::reads_promptly() const noexcept {
    auto known = promptness_.load(std::memory_order_relaxed);
    if (known == Promptness::not_asked) {
        known = all_files(sys::reads_promptly) ? Promptness::prompt : Promptness::unknown;
        promptness_.store(known, std::memory_order_relaxed);
    }
    return known == Promptness::prompt;
}

void FileLease::learn() const noexcept {
    if (promptness_.load(std::memory_order_relaxed) == Promptness::unknown) {
        const bool near =
            all_files([](int fd) noexcept { return sys::reads_promptly(fd) || sys::is_near(fd); });
        promptness_.store(near ? Promptness::prompt : Promptness::not_prompt,
                          std::memory_order_relaxed);
    }
}

const sys::UniqueFd* FileLease::whole_file() const noexcept {
    return is_whole_file(extents_) ? extents_.front().file.get() : nullptr;
}

std::shared_ptr<const FileLease> LeaseTable::find(std::uint64_t nodeid) const {
    const auto& shard = shards_[shard_of(nodeid)];
    const std::lock_guard guard(shard.lock);
    const auto found = shard.leases.find(nodeid);
    return found == shard.leases.end() ? nullptr : found->second;
}

std::shared_ptr<const FileLease> LeaseTable::put(std::uint64_t nodeid,
                                                 std::shared_ptr<const FileLease> lease) {
    auto& shard = shards_[shard_of(nodeid)];
    const std::lock_guard guard(shard.lock);
    return std::exchange(shard.leases[nodeid], std::move(lease));
}

std::shared_ptr<const FileLease> LeaseTable::take(std::uint64_t nodeid) {
    auto& shard = shards_[shard_of(nodeid)];
    const std::lock_guard guard(shard.lock);
    const auto node = shard.leases.extract(nodeid);
    return node.empty() ? nullptr : node.mapped();
}

std::size_t LeaseTable::size() const {
    std::size_t size = 0;
    for (const auto& shard : shards_) {
        const std::lock_guard guard(shard.lock);
        size += shard.leases.size();
    }
    return size;
}

void LeaseTable::clear() {
    for (auto& shard : shards_) {
        std::unordered_map<std::uint64_t, std::shared_ptr<const FileLease>> dropped;
        const std::lock_guard guard(shard.lock);
        dropped.swap(shard.leases);
    }
}

}  // namespace zc
