// Serves a program's directories (`Dir`) from values: control describes each entry, and changes it
// while it is mounted. Each question looks at the files behind the entry.
//
// An entry keeps its identity while the same files are behind it. With other files, its name shows
// another file, as after rename(2).
//
// In a policy's directory the entries are its leased answers. Those for everyone lie in the
// directory itself, those for one user in a directory without a name, which the user's number leads
// to. Such an entry has the key that it would have for everyone: equal answers are one file.
//
// Threads: any. The lock is innermost, and no system call is made under it: an entry is copied,
// its files are looked at, and the answer holds for the moment of the copy.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
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
        std::uint64_t ino = 0;     // of what is forwarded, with its type
        std::uint32_t type = 0;
        std::string target;
        bool asks = false;               // of a directory: a policy answers for the names in it
        bool keeps = false;              // a directory that is there stays, with its entries
        std::vector<BlobTerm> terms;     // without their paths and memories
        std::vector<std::string> paths;  // of the terms that are files, in order
        std::vector<int> memories;       // of the terms that are memory, in order; borrowed
    };
    // For whom a policy's answer holds, and for how long.
    struct AnswerLease {
        std::optional<std::uint32_t> uid;  // nullopt: everyone
        std::int64_t until_ms = kForever;  // coarse; then the answer is control's again
    };
    static constexpr std::int64_t kForever = std::numeric_limits<std::int64_t>::max();
    // Sets what the root was given, and when it was last changed.
    void set_root(const GivenAttributes& given, std::uint64_t key, std::int64_t time_ns,
                  bool asks = false);
    // Puts entries into a directory, each in the place of one of its name, and returns their
    // numbers. A directory is a new one, unless it `keeps`. Throws std::system_error; what came
    // before is done.
    std::vector<std::uint32_t> put(std::uint32_t directory, std::vector<Spec> specs,
                                   std::int64_t time_ns, const AnswerLease& lease);
    // Puts the names of a policy's directory, and lists those until the lease ends. A spec of no
    // kind is a name whose answer is there, otherwise its number and type. `complete`: other names
    // are missing.
    std::vector<std::uint32_t> list(std::uint32_t directory, std::vector<Spec> specs,
                                    std::int64_t time_ns, const AnswerLease& lease, bool complete);
    // Takes a name's entries away, and a policy's leased listings; with "" those alone.
    void remove(std::uint32_t directory, std::string_view name, std::int64_t time_ns);
    // Takes a policy's answer away.
    void drop(std::uint32_t directory, std::string_view name, std::optional<std::uint32_t> uid);
    // The identity of a directory; ino 0 for an unknown number.
    Identity identity_of(std::uint32_t directory) const;
    // The inode number that clients see of an entry now; 0 if its files are missing.
    std::uint64_t ino_of_entry(std::uint32_t number) const;
    void refuse_device(std::uint32_t major, std::uint32_t minor) noexcept {
        paths_.refuse_device(major, minor);
    }
    // Whether control is never needed below the root.
    bool is_complete() const noexcept override { return forwarded_ == 0; }
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

    static constexpr std::uint64_t kNoFiles = 1;  // the stamp of an entry without files
    static std::uint64_t ino_of(const IndexRecord& record, std::uint64_t stamp) noexcept;
    static statx_timestamp time_of(std::int64_t time) noexcept;
    // What a policy has leased of a directory.
    struct Policy {
        std::int64_t listed_until_ms = 0;
        bool complete = false;  // names that are not listed are missing
        std::unordered_map<std::uint32_t, std::uint32_t> users;  // their directories, by uid
    };
    struct Directory {
        std::vector<std::uint32_t> children;  // by order
        std::uint32_t next_order = 0;
        std::uint32_t directories = 0;
        std::int64_t time_ns = 0;
        std::unique_ptr<Policy> policy;  // whom control asks for the names that it lacks
    };
    // A directory of an At: the number may have come to be another entry's.
    struct EntryRef {
        std::uint32_t number = 0;
        std::uint64_t serial = 0;
    };
    // A directory as a user sees it.
    struct View {
        EntryRef place;
        std::optional<EntryRef> own;  // where a policy's answers for this user lie
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
    bool is_there(const EntryRef& place) const;
    // Whether an entry's time is over.
    bool has_ended(std::uint32_t number) const;
    std::optional<std::uint32_t> valid(std::uint32_t directory, std::string_view name) const;
    bool is_listed(std::uint32_t directory) const;
    std::optional<EntryRef> place_of_user(const EntryRef& place, std::uint32_t uid) const;
    // Each returns 0, -errno or kUpcall. `name` "" is the directory itself. With kUpcall, `into` is
    // the entry whose time is over, if there is one.
    int entry_at(const View& view, std::string_view name, Snapshot& into) const;
    // What a policy answers single users for a name.
    std::vector<Snapshot> entries_of_users(const EntryRef& place, std::string_view name) const;
    int above(const EntryRef& place, Found& into) const;
    int enter(const EntryRef& place, std::string_view name, EntryRef& into) const;
    // The directories of a name for everyone and for single users.
    std::vector<EntryRef> directories_at(const EntryRef& place, std::string_view name) const;
    bool enter_to(const EntryRef& from, std::string_view path, std::uint64_t ino,
                  EntryRef& into) const;
    // Where the names to list lie, and whether there are such.
    int listed_at(const View& view, EntryRef& into) const;
    struct Position {
        std::uint32_t order = 0;
        bool has_ended = false;
    };
    // The first entry at an order or behind it: 1, 0 at the end, or -errno.
    int entry_behind(const EntryRef& place, Position& position, Snapshot& into,
                     std::string& name) const;
    int examine(const Snapshot& entry, Found& into) const;
    struct ::statx shown(const Snapshot& entry, const Blob& blob) const;

    std::uint32_t put_one(std::uint32_t directory, Spec& spec, std::int64_t until_ms);
    // The directory where answers of a lease lie; made, if `makes`, and nullopt otherwise.
    std::optional<std::uint32_t> home(std::uint32_t directory, const AnswerLease& lease,
                                      bool makes);
    void require_directory(std::uint32_t directory, const AnswerLease& lease) const;
    void describe(IndexRecord& record, Spec& spec);
    void set_end(std::uint32_t number, std::int64_t until_ms);
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
    std::atomic<std::size_t> forwarded_{0};
    std::atomic<std::size_t> users_{0};  // directories of single users
    std::uint64_t last_serial_ = 0;
};

}  // namespace zc
