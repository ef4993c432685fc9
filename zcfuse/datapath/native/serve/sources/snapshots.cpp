#include "serve/sources/snapshots.hpp"

#include <atomic>
#include <utility>

#include "serve/mtime.hpp"

namespace zc {

namespace {

constexpr std::size_t kWorthTrimming = 1 << 20;  // bytes

std::uint64_t number_of(const statx_timestamp& time) noexcept {
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

SnapshotMemory::SnapshotMemory(std::shared_ptr<Snapshots> of, std::size_t bytes)
    : of_(std::move(of)), bytes_(bytes) {
    const std::lock_guard guard(of_->lock_);
    of_->sum_.bytes += bytes_;
    ++of_->sum_.count;
    ++of_->sum_.made;
}

SnapshotMemory::~SnapshotMemory() {
    const std::lock_guard guard(of_->lock_);
    of_->sum_.bytes -= bytes_;
    --of_->sum_.count;
    if (bytes_ >= kWorthTrimming) {
        of_->freed_.store(true, std::memory_order_release);
    }
}

HeldSnapshot::~HeldSnapshot() {
    if (snapshot_) {
        of_->let_go(*snapshot_, uid_);
    }
}

// A client may set the mtime, but not the ctime.
std::uint64_t Snapshots::next_source() noexcept {
    static std::atomic<std::uint64_t> last{0};
    return ++last;
}

void Snapshots::add_to(Version& version, const struct ::statx& status) {
    version.insert(version.end(),
                   {std::uint64_t{status.stx_dev_major} << 32 | status.stx_dev_minor,
                    status.stx_ino, number_of(status.stx_mtime), number_of(status.stx_ctime)});
}

bool Snapshots::is_settled(const struct ::statx& status) noexcept {
    return zc::is_settled(status.stx_mtime) && zc::is_settled(status.stx_ctime);
}

HeldSnapshot Snapshots::find(const Version& version, std::uint32_t uid) {
    const std::lock_guard guard(lock_);
    const auto found = shared_.find(version);
    auto snapshot = found == shared_.end() ? nullptr : found->second.lock();
    const auto user = users_.find(uid);
    const bool has = user != users_.end() && user->second.listings.contains(snapshot.get());
    if (!snapshot || !(has || admits_locked(uid))) {
        return {};
    }
    ++sum_.shared;
    return hold_locked(std::move(snapshot), uid);
}

bool Snapshots::admits_locked(std::uint32_t uid) const {
    const auto user = users_.find(uid);
    return uid == 0 || user == users_.end() || user->second.bytes <= kBytesPerUser;
}

bool Snapshots::admits(std::uint32_t uid) const {
    const std::lock_guard guard(lock_);
    return admits_locked(uid);
}

void Snapshots::refused() {
    const std::lock_guard guard(lock_);
    ++sum_.refused;
}

HeldSnapshot Snapshots::hold_locked(std::shared_ptr<const Snapshot> snapshot, std::uint32_t uid) {
    auto& user = users_[uid];
    if (++user.listings[snapshot.get()] == 1) {
        user.bytes += snapshot->bytes();
    }
    return {shared_from_this(), uid, std::move(snapshot)};
}

void Snapshots::let_go(const Snapshot& snapshot, std::uint32_t uid) {
    const std::lock_guard guard(lock_);
    const auto user = users_.find(uid);
    const auto listings = user->second.listings.find(&snapshot);
    if (--listings->second > 0) {
        return;
    }
    user->second.listings.erase(listings);
    user->second.bytes -= snapshot.bytes();
    if (user->second.listings.empty()) {
        users_.erase(user);
    }
}

HeldSnapshot Snapshots::add(Snapshot made, std::uint32_t uid, const Version* version) {
    made.memory = std::make_unique<SnapshotMemory>(shared_from_this(), made.bytes());
    auto snapshot = std::make_shared<const Snapshot>(std::move(made));
    const std::lock_guard guard(lock_);
    if (version != nullptr) {
        std::erase_if(shared_, [](const auto& one) { return one.second.expired(); });
        shared_[*version] = snapshot;
    }
    return hold_locked(std::move(snapshot), uid);
}

Snapshots::Statistics Snapshots::statistics() const {
    const std::lock_guard guard(lock_);
    return sum_;
}

}  // namespace zc
