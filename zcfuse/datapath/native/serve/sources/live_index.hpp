// Serves a program's directories (`Dir`) from values: control describes each entry, and changes it
// while it is mounted. Each question looks at the files behind the entry.
//
// An entry keeps its identity while the same files are behind it. With other files, its name shows
// another file, as after rename(2).
//
// Threads: any. The lock is innermost, and no system call is made under it: an entry is copied,
// its files are looked at, and the answer holds for the moment of the copy.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "serve/sources/backing_paths.hpp"
#include "serve/sources/index_store.hpp"
#include "serve/sources/source.hpp"

namespace zc {

class LiveIndex final : public Source, public std::enable_shared_from_this<LiveIndex> {
  public:
    static constexpr std::uint32_t kRoot = 0;
    struct Shown {
        std::uint32_t uid = 0;
        std::uint32_t gid = 0;
        std::int64_t made_ns = 0;  // the time of an entry without one
    };
    // `trust_ms` and `descriptors` are for the directories of backing files.
    LiveIndex(const Shown& shown, std::int64_t trust_ms, std::size_t descriptors);

    // An entry as control describes it.
    struct Spec {
        std::string name;
        EntryKind kind = EntryKind::none;
        GivenAttributes given;
        std::uint64_t key = 0;     // distinguishes directories and memories
        std::int64_t time_ns = 0;  // of a directory the last change; of a blob when it was made
        std::uint64_t ino = 0;     // of what is handed up, with its type
        std::uint32_t type = 0;
        std::string target;
        bool asks = false;                // of a directory: control answers for other names in it
        std::int64_t valid_until_ms = 0;  // coarse; 0: no limit. Then the name is control's again
        std::vector<BlobTerm> terms;      // without their paths and memories
        std::vector<std::string> paths;   // of the terms that are files, in order
        std::vector<int> memories;        // of the terms that are memory, in order; borrowed
    };
    // Sets what the root was given, and when it was last changed.
    void set_root(const GivenAttributes& given, std::uint64_t key, std::int64_t time_ns,
                  bool asks = false);
    // Puts entries into a directory, each in the place of one of its name, and returns their
    // numbers. A directory is always a new one. Throws std::system_error; what came before is done.
    std::vector<std::uint32_t> put(std::uint32_t directory, std::vector<Spec> specs,
                                   std::int64_t time_ns);
    void remove(std::uint32_t directory, std::string_view name, std::int64_t time_ns);
    // The identity of a directory; ino 0 for an unknown number.
    Identity identity_of(std::uint32_t directory) const;
    // The inode number that clients see of an entry now; 0 if its files are missing.
    std::uint64_t ino_of_entry(std::uint32_t number) const;
    void refuse_device(std::uint32_t major, std::uint32_t minor) noexcept {
        paths_.refuse_device(major, minor);
    }
    // Whether control is never needed below the root.
    bool is_complete() const noexcept override { return handed_up_ == 0; }
    std::size_t entries() const override;

    Kind kind() const noexcept override { return Kind::index; }
    Freshness freshness() const noexcept override { return Freshness::timed; }
    SourceDirectory::Ref root() const override;
    int filesystem_status(struct ::statvfs& into) const override;
    Volume volume(std::uint32_t) const override { return {}; }
    std::size_t bytes() const noexcept override;

  private:
    class At;
    class Names;
    class OpenEntry;
    struct Directory {
        std::vector<std::uint32_t> children;  // by order
        std::uint32_t next_order = 0;
        std::uint32_t directories = 0;
        std::int64_t time_ns = 0;
        bool asks = false;
    };
    // A directory of an At: the number may have come to be another entry's.
    struct Place {
        std::uint32_t number = 0;
        std::uint64_t serial = 0;
    };
    // An entry as it is at one moment.
    struct Snapshot {
        std::uint32_t number = 0;
        IndexRecord record;
        GivenAttributes given;
        std::vector<BlobTerm> terms;
        std::string text;         // of a symlink the target
        std::uint32_t links = 1;  // 1 for a directory: the number of directories in it is unknown
        std::int64_t time_ns = 0;
    };
    Snapshot snapshot(std::uint32_t number) const;
    bool is_there(const Place& place) const;
    // Whether control answers for the names that a directory does not hold, and lists it.
    bool asks(const Place& place) const;
    // Whether an entry's time is over.
    bool has_ended(std::uint32_t number) const;
    // Each returns 0, -errno or kHandUp. `name` "" is the directory itself.
    int entry_at(const Place& place, std::string_view name, Snapshot& into) const;
    int above(const Place& place, Found& into) const;
    int enter(const Place& place, std::string_view name, Place& into) const;
    // The first entry at an order or behind it: 1, 0 at the end, or -errno.
    int entry_behind(const Place& place, std::uint32_t order, Snapshot& into,
                     std::string& name) const;
    int examine(const Snapshot& entry, Found& into) const;
    struct ::statx shown(const Snapshot& entry, const Blob& blob) const;

    std::uint32_t put_one(std::uint32_t directory, Spec& spec);
    void describe(IndexRecord& record, Spec& spec);
    void set_end(std::uint32_t number, const Spec& spec);
    std::uint64_t key_of(const Spec& spec, std::uint64_t above) const;
    void resolve(Spec& spec);
    void detach(std::uint32_t number);
    void release(std::uint32_t number);
    std::size_t place_in(const Directory& directory, std::uint32_t order) const;

    const Shown shown_;
    mutable BackingPaths paths_;
    mutable std::shared_mutex lock_;
    IndexStore store_;
    std::unordered_map<std::uint32_t, Directory> directories_;
    std::unordered_map<std::uint32_t, std::int64_t> times_;  // only of blobs with a time
    std::unordered_map<std::uint32_t, std::int64_t> ends_;   // of entries that are valid for a time
    std::atomic<std::size_t> handed_up_{0};
    std::uint64_t last_serial_ = 0;
};

}  // namespace zc
