// The names of merged directories, each from one pass over the layers.
//
// Several listings share one snapshot: a listing takes another one's snapshot if nothing in the
// directory has changed since that pass began, because another pass would find the same. The last
// listing that uses a snapshot frees it. A snapshot counts once for each user whose listings use
// it, as long as they do: nobody pays for what only others still hold.
//
// Threads: any; the lock is innermost. A snapshot does not change.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace zc {

class Snapshots;

// Memory that the statistics count while this lives.
class SnapshotMemory {
  public:
    SnapshotMemory(std::shared_ptr<Snapshots> of, std::size_t bytes);
    SnapshotMemory(const SnapshotMemory&) = delete;
    SnapshotMemory& operator=(const SnapshotMemory&) = delete;
    ~SnapshotMemory();

  private:
    const std::shared_ptr<Snapshots> of_;
    const std::size_t bytes_;
};

struct Snapshot {
    struct Name {
        std::uint64_t ino;
        std::uint32_t start;  // in `text`; a NUL follows the name
        std::uint16_t length;
        unsigned char type;
        std::uint8_t layer;  // of the listed layers; kAnyLayer: one behind these
    };
    static constexpr std::uint8_t kAnyLayer = 255;
    std::vector<Name> names;
    std::string text;
    std::unique_ptr<const SnapshotMemory> memory;

    std::size_t bytes() const noexcept { return names.capacity() * sizeof(Name) + text.capacity(); }
};

// A snapshot that a listing of a user uses; counts for that user while this lives.
class HeldSnapshot {
  public:
    HeldSnapshot() = default;
    HeldSnapshot(std::shared_ptr<Snapshots> of, std::uint32_t uid,
                 std::shared_ptr<const Snapshot> snapshot) noexcept
        : of_(std::move(of)), uid_(uid), snapshot_(std::move(snapshot)) {}
    HeldSnapshot(HeldSnapshot&& other) noexcept = default;
    HeldSnapshot& operator=(HeldSnapshot&& other) noexcept {
        std::swap(of_, other.of_);
        std::swap(uid_, other.uid_);
        std::swap(snapshot_, other.snapshot_);
        return *this;
    }
    HeldSnapshot(const HeldSnapshot&) = delete;
    HeldSnapshot& operator=(const HeldSnapshot&) = delete;
    ~HeldSnapshot();

    explicit operator bool() const noexcept { return snapshot_ != nullptr; }
    const Snapshot* operator->() const noexcept { return snapshot_.get(); }

  private:
    std::shared_ptr<Snapshots> of_;
    std::uint32_t uid_ = 0;
    std::shared_ptr<const Snapshot> snapshot_;
};

class Snapshots : public std::enable_shared_from_this<Snapshots> {
  public:
    // The state of a directory when a pass over it began.
    using Version = std::vector<std::uint64_t>;

    // A user who uses more gets no further snapshot, neither by a pass nor of another listing. One
    // is always allowed. Root has no limit.
    static constexpr std::size_t kBytesPerUser = 64 << 20;

    // The number of another source of merged directories.
    static std::uint64_t next_source() noexcept;
    static void add_to(Version& version, const struct ::statx& status);
    // Whether a change after now shows in the times of a status.
    static bool is_settled(const struct ::statx& status) noexcept;

    // The snapshot of this version, which a pass would make again, for a listing of a user; none if
    // the table has none, or if the user may have no further one.
    HeldSnapshot find(const Version& version, std::uint32_t uid);
    // Whether a user may have a further snapshot.
    bool admits(std::uint32_t uid) const;
    void refused();
    // Keeps what a pass for a user has found. Other listings may use it if `version` has a value.
    HeldSnapshot add(Snapshot made, std::uint32_t uid, const Version* version);
    // Whether a large snapshot was freed since the last call.
    bool take_freed() noexcept { return freed_.exchange(false, std::memory_order_acq_rel); }

    struct Statistics {
        std::size_t count = 0;
        std::size_t bytes = 0;
        std::uint64_t made = 0;
        std::uint64_t shared = 0;   // listings that used another one's
        std::uint64_t refused = 0;  // listings of users who had too many
    };
    Statistics statistics() const;

  private:
    friend class SnapshotMemory;
    friend class HeldSnapshot;
    struct User {
        std::size_t bytes = 0;
        std::unordered_map<const Snapshot*, std::size_t> listings;  // by the snapshot they use
    };
    bool admits_locked(std::uint32_t uid) const;
    HeldSnapshot hold_locked(std::shared_ptr<const Snapshot> snapshot, std::uint32_t uid);
    void let_go(const Snapshot& snapshot, std::uint32_t uid);

    mutable std::mutex lock_;
    std::map<Version, std::weak_ptr<const Snapshot>> shared_;
    std::unordered_map<std::uint32_t, User> users_;
    Statistics sum_;
    std::atomic<bool> freed_{false};
};

}  // namespace zc
