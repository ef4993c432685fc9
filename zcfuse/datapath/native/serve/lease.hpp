// Leases, which control installs so that the data path answers for open files without upcalls.
//
// A FileLease belongs to a node, not to an open: the kernel demands one mode (cached or
// passthrough) and one backing id for all opens of an inode, from the first open to the last
// release. It owns copies of the descriptors, so that control may close its own at any time, and it
// is shared: a READ in flight keeps it alive across a revoke.
//
// Threads: a FileLease is immutable once installed, but for what it finds out about its files.
// LeaseTable may be used from any thread; its lock is innermost, and a lease is never destroyed
// under it (that closes descriptors).
#pragma once

#include <sys/stat.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "serve/config.hpp"
#include "serve/presence.hpp"
#include "sys/unique_fd.hpp"
#include "transport/channel.hpp"

namespace zc {

class WindowCache;

// A run of bytes of a backing file. Length kWholeFile means to the end of the file at the time of
// the read; only the last extent may have it.
inline constexpr std::uint64_t kWholeFile = ~std::uint64_t{0};

struct Extent {
    std::shared_ptr<const sys::UniqueFd> file;
    std::uint64_t id =
        0;  // of the backing file within the lease's lifetime, for windows; never reused
    std::uint64_t offset = 0;
    std::uint64_t length = kWholeFile;
    bool hole = false;        // zeros: `file` is hole_file(), and `offset` means nothing
    std::uint64_t start = 0;  // where it lies in the leased file; FileLease sets it
};

// One backing file from its start to its end.
bool is_whole_file(std::span<const Extent> extents) noexcept;

// The file that holes are read from: a sealed memfd without pages, so that zeros use the same calls
// as data and cost no memory. Null if memfd_create fails.
std::shared_ptr<const sys::UniqueFd> hole_file();

// A new number for a backing file, never used before.
std::uint64_t next_file_id() noexcept;

// A part of one extent that a request covers.
struct Slice {
    int fd;
    std::uint64_t id;
    std::uint64_t offset;
    std::size_t size;
};

class HandleMemory;

// A backing file registered with the kernel for passthrough; closes the registration when it dies.
// It lies in the memory for a successor meanwhile, which outlives it.
class BackingId {
  public:
    // Notes the id, unless it is inherited and so noted.
    BackingId(std::shared_ptr<const DeviceChannel> session, HandleMemory& memory, int id);
    BackingId(const BackingId&) = delete;
    BackingId& operator=(const BackingId&) = delete;
    ~BackingId();
    int get() const noexcept { return id_; }

  private:
    std::shared_ptr<const DeviceChannel> session_;
    HandleMemory& memory_;
    int id_;
};

class FileLease;

// Computes an open file's attributes where they differ from those of one backing file.
class OpenStatus {
  public:
    OpenStatus() = default;
    OpenStatus(const OpenStatus&) = delete;
    OpenStatus& operator=(const OpenStatus&) = delete;
    virtual ~OpenStatus() = default;
    // 0 or -errno.
    virtual int status(const FileLease& lease, struct ::statx& into) const = 0;
};

class FileLease {
  public:
    // `mode` forces a serving path for this file. Only what `presence` shows may be read, all of it
    // without one.
    FileLease(std::vector<Extent> extents, std::shared_ptr<const BackingId> backing,
              std::shared_ptr<WindowCache> windows, std::optional<Mode> mode = {},
              std::shared_ptr<const OpenStatus> shown = nullptr,
              std::shared_ptr<const Presence> presence = nullptr) noexcept;
    FileLease(const FileLease&) = delete;
    FileLease& operator=(const FileLease&) = delete;
    ~FileLease();

    // The parts of extents that [offset, offset + size) covers, in order; fewer bytes at the end.
    void slices(std::uint64_t offset, std::size_t size, std::vector<Slice>& into) const;
    // Whether the bytes of a range are there to be read.
    bool has(std::uint64_t offset, std::size_t size) const noexcept {
        return !presence_ || presence_->shows(offset, size);
    }
    // The backing file if the lease is one whole file; nullptr otherwise.
    const sys::UniqueFd* whole_file() const noexcept;
    const std::vector<Extent>& extents() const noexcept { return extents_; }
    const OpenStatus* shown() const noexcept { return shown_.get(); }
    bool passthrough() const noexcept { return backing_ != nullptr; }
    const std::shared_ptr<const BackingId>& backing() const noexcept { return backing_; }
    int backing_id() const noexcept { return backing_ ? backing_->get() : 0; }
    std::optional<Mode> mode() const noexcept { return mode_; }

    // Whether a READ can be kept from waiting for another process or machine, because all files
    // lie on filesystems that answer by themselves. False until known; never waits.
    bool reads_promptly() const noexcept;
    // Finds that out, which may wait for those.
    void learn() const noexcept;

  private:
    enum class Promptness : std::uint8_t { not_asked, unknown, prompt, not_prompt };
    bool all_files(bool (*is)(int) noexcept) const noexcept;

    std::vector<Extent> extents_;
    std::shared_ptr<const BackingId> backing_;
    std::shared_ptr<WindowCache> windows_;
    std::optional<Mode> mode_;
    std::shared_ptr<const OpenStatus> shown_;
    std::shared_ptr<const Presence> presence_;
    mutable std::atomic<Promptness> promptness_{Promptness::not_asked};
};

// Each shard has a lock, so that clients of different files do not wait for one another.
class LeaseTable {
  public:
    std::shared_ptr<const FileLease> find(std::uint64_t nodeid) const;
    // Returns the former lease, for the caller to drop outside of every lock.
    std::shared_ptr<const FileLease> put(std::uint64_t nodeid,
                                         std::shared_ptr<const FileLease> lease);
    std::shared_ptr<const FileLease> take(std::uint64_t nodeid);
    std::size_t size() const;
    void clear();

  private:
    struct alignas(64) Shard {
        mutable std::mutex lock;
        std::unordered_map<std::uint64_t, std::shared_ptr<const FileLease>> leases;
    };
    static constexpr std::size_t kShards = 16;
    // Nodeids are counted up in steps of a power of two: spread by the golden ratio.
    static std::size_t shard_of(std::uint64_t nodeid) noexcept {
        return static_cast<std::size_t>((nodeid * 0x9E37'79B9'7F4A'7C15ULL) >> 60);
    }

    std::array<Shard, kShards> shards_;
};

}  // namespace zc
