#include "serve/sources/snapshots.hpp"

#include <utility>

#include "serve/mtime.hpp"

namespace zc {

namespace {

constexpr std::size_t kWorthTrimming = 1 << 20;  // bytes

std::uint64_t number_of(const statx_timestamp& time) noexcept {
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

SnapshotCharge::SnapshotCharge(std::shared_ptr<Snapshots> of, std::uint32_t uid, std::size_t bytes)
    : of_(std::move(of)), uid_(uid), bytes_(bytes) {
    const std::lock_guard guard(of_->lock_);
    of_->bytes_[uid_] += bytes_;
    of_->sum_.bytes += bytes_;
    ++of_->sum_.count;
    ++of_->sum_.made;
}

SnapshotCharge::~SnapshotCharge() {
    const std::lock_guard guard(of_->lock_);
    of_->sum_.bytes -= bytes_;
    --of_->sum_.count;
    const auto user = of_->bytes_.find(uid_);
    if ((user->second -= bytes_) == 0) {
        of_->bytes_.erase(user);
    }
    if (bytes_ >= kWorthTrimming) {
        of_->freed_.store(true, std::memory_order_release);
    }
}

// A client may set the mtime, but not the ctime.
void Snapshots::add_to(Version& version, const struct ::statx& status) {
    version.insert(version.end(),
                   {std::uint64_t{status.stx_dev_major} << 32 | status.stx_dev_minor,
                    status.stx_ino, number_of(status.stx_mtime), number_of(status.stx_ctime)});
}

bool Snapshots::is_settled(const struct ::statx& status) noexcept {
    return zc::is_settled(status.stx_mtime) && zc::is_settled(status.stx_ctime);
}

Snapshots::Ref Snapshots::find(const Version& version) {
    const std::lock_guard guard(lock_);
    const auto found = shared_.find(version);
    auto snapshot = found == shared_.end() ? nullptr : found->second.lock();
    sum_.shared += snapshot ? 1 : 0;
    return snapshot;
}

bool Snapshots::admits(std::uint32_t uid) const {
    const std::lock_guard guard(lock_);
    const auto user = bytes_.find(uid);
    return uid == 0 || user == bytes_.end() || user->second <= kBytesPerUser;
}

void Snapshots::refused() {
    const std::lock_guard guard(lock_);
    ++sum_.refused;
}

Snapshots::Ref Snapshots::add(Snapshot made, std::uint32_t uid, const Version* version) {
    made.charge = std::make_unique<SnapshotCharge>(shared_from_this(), uid, made.bytes());
    auto snapshot = std::make_shared<const Snapshot>(std::move(made));
    if (version != nullptr) {
        const std::lock_guard guard(lock_);
        std::erase_if(shared_, [](const auto& one) { return one.second.expired(); });
        shared_[*version] = snapshot;
    }
    return snapshot;
}

Snapshots::Statistics Snapshots::statistics() const {
    const std::lock_guard guard(lock_);
    return sum_;
}

}  // namespace zc
