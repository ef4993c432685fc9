// A tree of names that does not change by itself, the members of an archive: all that LOOKUP,
// GETATTR, READDIR and OPEN want to know, in memory.
//
// It is four runs of bytes, little-endian: *entries* are names, those of a directory together and
// sorted by their bytes; *nodes* are what they lead to, by number, 0 being the root; *pieces* are
// the runs of sparse members; *names* is where entries and symlinks have their bytes. The records
// below are the only description of them; Python packs records by the formats beside these. Every
// number is checked where it is used: what does not fit is kUpcall, and control reports it.
//
// Threads: immutable, so any. It owns a copy of the archive's descriptor, or none: then opens go
// up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "abi/fuse.hpp"
#include "serve/constants.hpp"
#include "serve/lease.hpp"
#include "serve/surviving/publish.hpp"
#include "sys/unique_fd.hpp"

namespace zc {

struct EntryRecord {
    std::uint64_t name;  // in the names
    std::uint32_t node;
    std::uint16_t length;
    std::uint16_t padding;
};
// In the notation of Python's struct module.
inline constexpr const char* kEntryFormat = "<QIH2x";

// | kind | place | extent | detail |
// |---|---|---|---|
// | directory | first entry | number of entries | - |
// | file | offset in the archive | - | - |
// | sparse | first piece | number of pieces | 512-byte blocks outside holes |
// | symlink | offset in the names | length | - |
// | deflated, bzip2, lzma | offset in the archive | bytes there | CRC-32 |
// | streamed | offset in the decompressed archive | bytes there | CRC-32 |
// | streamed sparse | first piece | number of pieces | 512-byte blocks outside holes |
// | unreadable | - | - | reason, a position in the list of reasons |
struct NodeRecord {
    std::uint32_t mode;
    std::uint32_t uid;
    std::uint32_t gid;
    std::uint32_t nlink;
    std::int64_t mtime_ns;
    std::uint64_t size;
    std::uint64_t place;
    std::uint64_t extent;
    std::uint32_t detail;
    MemberKind kind;
    std::uint8_t padding[3];

    // Bytes in the archive; those of a sparse member are rounded up to sectors.
    std::uint64_t stored() const noexcept;
};
inline constexpr const char* kNodeFormat = "<IIIIqQQQIB3x";

struct PieceRecord {
    std::uint64_t logical;  // offset in the file
    std::uint64_t offset;   // in the archive, decompressed for a streamed member
    std::uint64_t length;
};
inline constexpr const char* kPieceFormat = "<QQQ";

static_assert(sizeof(EntryRecord) == 16 && sizeof(NodeRecord) == 56 && sizeof(PieceRecord) == 24);

class MemberIndex {
  public:
    static constexpr std::uint32_t kRoot = 0;

    struct Sections {
        std::string entries;
        std::string nodes;
        std::string pieces;
        std::string names;
        std::size_t bytes() const noexcept {
            return entries.size() + nodes.size() + pieces.size() + names.size();
        }
    };
    // The archive's version when it was indexed. Opening a member requires the same version.
    struct Version {
        std::uint64_t size = 0;
        std::int64_t mtime_ns = 0;
        std::int64_t ctime_ns = 0;
        bool operator==(const Version&) const noexcept = default;
    };
    struct Shown {
        std::uint64_t first_ino = 0;  // a node's inode number is this and its own
        std::optional<std::uint32_t> uid;
        std::optional<std::uint32_t> gid;
    };

    MemberIndex(Sections sections, const Version& version, const Shown& shown, sys::UniqueFd file);
    // The same index, shown differently and with another descriptor. Copies no section.
    MemberIndex(const MemberIndex& other, const Shown& shown, sys::UniqueFd file);

    // Each of these returns 0, a -errno or kUpcall.
    int lookup(std::uint32_t directory, std::string_view name, std::uint32_t& into) const;
    int node(std::uint32_t number, NodeRecord& into) const;
    int attributes(std::uint32_t node, abi::Attr& into) const;
    int target(std::uint32_t node, std::string_view& into) const;
    // A part of a file: bytes of the archive, or a hole.
    struct Run {
        std::uint64_t offset = 0;  // in the archive
        std::uint64_t length = 0;
        bool is_hole = false;
    };
    // A file's parts, in order and without gaps; those of a streamed sparse member lie in the
    // decompressed archive. kUpcall for other members whose bytes the archive does not hold as they
    // are.
    int runs(std::uint32_t node, std::vector<Run>& into) const;
    // The same of a stored file as extents of the archive's descriptor; kUpcall without one.
    int extents(std::uint32_t node, std::vector<Extent>& into) const;
    bool is_unchanged() const;
    // Whether a node is a file whose bytes the archive has as they are.
    bool is_stored(std::uint32_t node) const;

    struct Names {
        std::uint64_t first = 0;
        std::uint64_t count = 0;
    };
    int names_of(std::uint32_t directory, Names& into) const;
    struct Entry {
        std::string_view name;
        std::uint32_t node = 0;
    };
    int entry(std::uint64_t number, Entry& into) const;

    // The parent of a directory. The root, and a directory without a name, is its own parent.
    std::uint32_t above(std::uint32_t directory) const;
    std::uint64_t ino(std::uint32_t node) const noexcept { return shown_.first_ino + node; }
    // One number for all that it says, the same in each process.
    std::uint64_t number() const noexcept;
    std::size_t bytes() const noexcept { return content_->sections.bytes(); }
    // Of all directories together.
    std::size_t names() const noexcept {
        return content_->sections.entries.size() / sizeof(EntryRecord);
    }
    bool has_file() const noexcept { return file_ != nullptr; }

  private:
    struct Content {
        Sections sections;
        std::unordered_map<std::uint32_t, std::uint32_t> above;  // of directories
    };
    void find_parents(Content& content) const;
    int sparse(const NodeRecord& node, std::vector<Run>& into) const;
    // Whether a run lies before `end`; appends it.
    static bool append(std::uint64_t offset, std::uint64_t length, std::uint64_t end,
                       std::vector<Run>& into);

    std::shared_ptr<const Content> content_;
    const Version version_;
    const Shown shown_;
    const std::uint64_t file_id_ = next_file_id();
    std::shared_ptr<const sys::UniqueFd> file_;
};

}  // namespace zc
