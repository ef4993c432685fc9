// The names of merged directories, each from one pass over the layers.
//
// Several listings share one snapshot: a listing takes another one's snapshot if nothing in the
// directory has changed since that pass began, because another pass would find the same. The last
// listing that uses a snapshot frees it. Each snapshot counts for the user who caused the pass,
// because its size is the directory's.
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
#include <vector>

namespace zc {

class Snapshots;

// Bytes that count for a user while this lives.
class SnapshotCharge {
  public:
    SnapshotCharge(std::shared_ptr<Snapshots> of, std::uint32_t uid, std::size_t bytes);
    SnapshotCharge(const SnapshotCharge&) = delete;
    SnapshotCharge& operator=(const SnapshotCharge&) = delete;
    ~SnapshotCharge();

  private:
    const std::shared_ptr<Snapshots> of_;
    const std::uint32_t uid_;
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
    std::unique_ptr<const SnapshotCharge> charge;

    std::size_t bytes() const noexcept { return names.capacity() * sizeof(Name) + text.capacity(); }
};

class Snapshots : public std::enable_shared_from_this<Snapshots> {
  public:
    using Ref = std::shared_ptr<const Snapshot>;
    // The state of a directory when a pass over it began.
    using Version = std::vector<std::uint64_t>;

    // Further passes of a user are refused while the snapshots of the earlier ones take more. One
    // pass is always allowed. Root has no limit.
    static constexpr std::size_t kBytesPerUser = 64 << 20;

    static void add_to(Version& version, const struct ::statx& status);
    // Whether a change after now shows in the times of a status.
    static bool is_settled(const struct ::statx& status) noexcept;

    // The snapshot of this version, which a pass would make again; nullptr if the table has none.
    Ref find(const Version& version);
    // Whether a pass may begin for a user.
    bool admits(std::uint32_t uid) const;
    void refused();
    // Keeps what a pass for a user has found. Other listings may use it if `version` has a value.
    Ref add(Snapshot made, std::uint32_t uid, const Version* version);
    // Whether a large snapshot was freed since the last call.
    bool take_freed() noexcept { return freed_.exchange(false, std::memory_order_acq_rel); }

    struct Statistics {
        std::size_t count = 0;
        std::size_t bytes = 0;
        std::uint64_t made = 0;
        std::uint64_t shared = 0;   // listings that used another one's
        std::uint64_t refused = 0;  // passes of users who had too many
    };
    Statistics statistics() const;

  private:
    friend class SnapshotCharge;

    mutable std::mutex lock_;
    std::map<Version, std::weak_ptr<const Snapshot>> shared_;
    std::unordered_map<std::uint32_t, std::size_t> bytes_;  // by user
    Statistics sum_;
    std::atomic<bool> freed_{false};
};

}  // namespace zc
