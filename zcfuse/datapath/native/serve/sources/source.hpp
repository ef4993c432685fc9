// A source answers for a subtree: names, attributes, extents, and how long its answers hold.
//
// Callers ask it as they call openat(2): with an open directory and a name in it. Node ids belong
// to the layer above (serve/nodes). A source has no node ids, so it can be a layer of another.
//
// Invariants:
//   - Each call returns 0, a -errno for the client, or kUpcall: control has to answer.
//   - A call with a `wanted` identity answers for that file only; -ESTALE if the name leads to
//     another by now. An identity never passes to another file.
//   - A source follows no symbolic link and enters no other mount; it returns kUpcall instead.
//
// Threads: any, at once. An open directory keeps its source alive; a Listing has one user at a
// time.
#pragma once

#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serve/lease.hpp"
#include "serve/nodes/table.hpp"
#include "serve/sources/layer_marks.hpp"
#include "sys/files.hpp"
#include "sys/unique_fd.hpp"

namespace zc {

inline constexpr int kUpcall = 1;

// How long a source's answers hold: for a time, because others change the tree silently; forever;
// or until the source reports a change. `strict`: the same, but the size and times of a file hold
// only while this process has a lease on it (serve/coherence/read_leases.hpp), and its bytes never.
// `names`: names hold until a change is reported, attributes for a time.
enum class Freshness : std::uint8_t { timed, fixed, pushed, strict, names };

constexpr bool reports_changes(Freshness freshness) noexcept {
    return freshness == Freshness::pushed || freshness == Freshness::strict;
}

constexpr bool reports_names(Freshness freshness) noexcept {
    return reports_changes(freshness) || freshness == Freshness::names;
}

class UnionDirectory;

// The file under a name. `identity.lease` counts the layers of the source.
struct Found {
    struct ::statx status {};
    Identity identity;
};

struct Opened {
    std::vector<Extent> extents;
    // Its size or mtime changes with the bytes.
    struct ::statx status {};
    std::optional<Mode> mode;                 // of this file alone
    bool keeps = true;                        // whether a later open finds the same extents
    std::shared_ptr<const OpenStatus> shown;  // nullptr: what a whole backing file shows
};

using Bytes = std::vector<std::byte>;

// A pass over the names of a directory, including "." and "..".
class Listing {
  public:
    struct Entry {
        std::uint64_t ino = 0;
        std::uint64_t next = 0;  // the position behind it, never 0
        unsigned char type = 0;  // DT_*
        const char* name = nullptr;
        std::size_t length = 0;
        std::string_view text() const noexcept { return {name, length}; }
    };

    Listing() = default;
    Listing(const Listing&) = delete;
    Listing& operator=(const Listing&) = delete;
    virtual ~Listing() = default;

    // Whether seek() has to read all names first. Their number has no bound, so a serving thread
    // calls gather(little), which returns kTooLong where that is much, and a thread for listings
    // calls gather(all). Both count what they keep for a user: 0, -errno; -ENOMEM where the user
    // keeps too much.
    enum class Effort : std::uint8_t { little, all };
    static constexpr int kTooLong = 2;
    virtual bool must_gather(std::uint64_t /*position*/) const noexcept { return false; }
    virtual int gather(Effort, std::uint32_t /*uid*/) { return 0; }
    // Goes to the position in an entry's `next`; 0 begins a pass. Returns 0 or -errno.
    virtual int seek(std::uint64_t position) = 0;
    // The entry at hand, valid until the next call: 1, 0 at the end, or -errno.
    virtual int peek(Entry& into) = 0;
    virtual void skip() = 0;
    // Whether a new listing can continue at a position of this one.
    virtual bool can_resume() const noexcept { return true; }
    // Whether seek(0) begins another pass of this one; otherwise that takes a new listing.
    virtual bool can_rewind() const noexcept { return true; }
    // Describes the entry at hand; false if the caller must look it up in the directory.
    virtual bool found(Found&) { return false; }
    std::uint64_t position() const noexcept { return position_; }

  protected:
    std::uint64_t position_ = 0;
};

// Calls `step` with each name of a path until it returns an error.
template <typename Step>
int for_each_name(std::string_view path, Step step) {
    while (!path.empty()) {
        const auto name = path.substr(0, path.find('/'));
        path.remove_prefix(std::min(name.size() + 1, path.size()));
        if (const int error = step(name); error != 0) {
            return error;
        }
    }
    return 0;
}

// An open directory of a source. A name is one component; "" stands for the directory itself.
class SourceDirectory {
  public:
    SourceDirectory() = default;
    SourceDirectory(const SourceDirectory&) = delete;
    SourceDirectory& operator=(const SourceDirectory&) = delete;
    virtual ~SourceDirectory() = default;

    using Ref = std::shared_ptr<const SourceDirectory>;

    // Looks a name up. With kUpcall, `into.status` describes the file that lies there.
    virtual int find(const char* name, Found& into) const = 0;
    // What find() will see without waiting for a disk, where the kernel has the name in its cache.
    virtual sys::Remembered remembered(const char* /*name*/) const { return sys::Remembered::file; }
    // Opens the directory at a path below this one, such as "a/b".
    virtual int enter(std::string_view path, Ref& into) const = 0;

    // The same to the directory that the kernel means, where users see several under one name.
    virtual int enter_to(std::string_view path, const Identity&, Ref& into) const {
        return enter(path, into);
    }
    // The directory as a user sees it; nullptr where all users see the same.
    virtual Ref seen_by(std::uint32_t /*uid*/) const { return nullptr; }

    virtual int status(const char* name, const Identity& wanted, struct ::statx& into) const = 0;
    // Opens a regular file for reading: -EISDIR for a directory.
    virtual int open(const char* name, const Identity& wanted, Opened& into) const = 0;
    // Whether a file that is still open may serve a further open, and what it is now.
    virtual int reopen(const char* name, const Identity& wanted, struct ::statx& into) const {
        return status(name, wanted, into);
    }
    virtual int read_link(const char* name, const Identity& wanted, std::string& into) const = 0;
    virtual int get_xattr(const char* name, const Identity& wanted, const char* attribute,
                          Bytes& into) const = 0;
    // The names, each with its NUL.
    virtual int list_xattrs(const char* name, const Identity& wanted, Bytes& into) const = 0;
    // Adds to `versions` the status of each real directory whose names are listed.
    virtual int list(std::unique_ptr<Listing>& into,
                     std::vector<struct ::statx>& versions) const = 0;

    // Reads the marks that overlayfs wrote for a name, for an overlay above this source.
    virtual int marks(const char*, Marks&) const { return 0; }
    // Opens the very file with flags of open(2), to change it.
    virtual int hold(const char*, const Identity&, int, sys::UniqueFd&, struct ::statx&) const {
        return kUpcall;
    }
    // Looks at a file that a client just made in this directory; "" for one without a name.
    virtual int identify(int, const char*, Found&) const { return kUpcall; }
    // The real directory, for operations that change it; -1 without one.
    virtual int descriptor() const noexcept { return -1; }
    // The real directories whose names show in it, for a watch on each.
    virtual void add_real(std::vector<int>& /*into*/) const {}
    // How clients change it, if it belongs to a union with an upper layer; else nullptr.
    virtual const UnionDirectory* as_union() const noexcept { return nullptr; }
};

// SourceDirectory::remembered() of parts that are searched in their order, up to a file.
template <typename Parts>
sys::Remembered remembered_in(const Parts& parts, const char* name) {
    auto found = sys::Remembered::nothing;
    for (const auto& part : parts) {
        const auto here = part.directory->remembered(name);
        if (here == sys::Remembered::unknown) {
            return here;
        }
        if (here == sys::Remembered::file) {
            return found == sys::Remembered::nothing ? here : found;
        }
        found = here == sys::Remembered::directory ? here : found;
    }
    return found;
}

class Source {
  public:
    enum class Kind : std::uint8_t { directory, overlay, index, filter };

    Source() = default;
    Source(const Source&) = delete;
    Source& operator=(const Source&) = delete;
    virtual ~Source() = default;

    virtual Kind kind() const noexcept = 0;
    virtual Freshness freshness() const noexcept = 0;
    // The same of the bytes of its files, which may lie where others change them.
    virtual Freshness data_freshness() const noexcept { return freshness(); }
    virtual SourceDirectory::Ref root() const = 0;
    // A directory of the source that lost its last name; nullptr if the source has no such
    // directories.
    virtual SourceDirectory::Ref adopt(sys::UniqueFd) const { return nullptr; }
    virtual int filesystem_status(struct ::statvfs& into) const = 0;
    // The inode number that clients see for a status of find() or status().
    virtual std::uint64_t shown_ino(const struct ::statx& status) const noexcept {
        return status.stx_ino;
    }

    // Whether its filesystems answer without another process or machine.
    virtual bool is_near() const noexcept { return true; }
    // Whether clients may change it, on a mount that is writable.
    virtual bool is_changeable() const noexcept { return false; }
    // 0, or the -errno with which opening an existing file for writing is refused.
    virtual int refused_write() const noexcept { return 0; }
    // Whether a change of a file's attributes alone leaves its bytes where they are.
    virtual bool makes_metacopies() const noexcept { return false; }
    // Whether clients may rename a directory that a lower layer has.
    virtual bool makes_redirects() const noexcept { return false; }

    // The number of layers in its identities, and the filesystem under one.
    struct Volume {
        std::uint64_t device = 0;  // major << 32 | minor; 0: no device
    };
    virtual std::uint32_t layers() const noexcept { return 1; }
    virtual Volume volume(std::uint32_t layer) const = 0;
    // The most descriptors that an open directory takes.
    virtual std::size_t descriptors() const noexcept { return 1; }
    // The real directories that it shows, for a watch on their filesystems; a source without any
    // adds none. `first` is the number of its first layer.
    struct Real {
        std::uint32_t layer = 0;
        int fd = -1;  // the source's
    };
    virtual void add_real(std::uint32_t /*first*/, std::vector<Real>& /*into*/) const {}
    // Whether watches on the real directories behind a directory report each change of its names.
    virtual bool names_can_be_watched() const noexcept { return freshness() == Freshness::fixed; }
    // From now on every change of its real directories is pushed to the kernel: `pushed` or
    // `strict`. With `names` only that of names, in those of its directories that are watched.
    virtual void set_pushed(Freshness /*how*/) const noexcept {}
    // A number of what identities are relative to: filesystems, an archive's index. Two processes'
    // sources with the same number never give one identity to two files, so nodes below a lease
    // outlive the process.
    virtual std::uint64_t content() const noexcept { return 0; }
    // Whether control is never needed below it.
    virtual bool is_complete() const noexcept { return true; }
    // Entries that control has described.
    virtual std::size_t entries() const { return 0; }
    // Memory for what it knows of its tree; 0 where it asks another filesystem.
    virtual std::size_t bytes() const noexcept { return 0; }
};

std::string_view kind_name(Source::Kind kind) noexcept;

// Whether a directory lists a name besides the dot names: 0, -errno or kUpcall.
int has_entries(const SourceDirectory& directory, bool& into);

// major << 32 | minor
inline std::uint64_t device_of(const struct ::statx& status) noexcept {
    return std::uint64_t{status.stx_dev_major} << 32 | status.stx_dev_minor;
}

// One number, the same every time, for an inode of another device.
std::uint64_t mixed_ino(std::uint64_t device, std::uint64_t ino) noexcept;

}  // namespace zc
