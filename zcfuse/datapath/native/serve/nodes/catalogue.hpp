// A tree of names that does not change by itself, the members of an archive: all that LOOKUP,
// GETATTR, READDIR and OPEN want to know, in memory.
//
// It is four runs of bytes, little-endian, as the archive's index has them
// (zcfuse/tree/archive/_format.py): *entries* are names, those of a directory together and sorted
// by their bytes; *nodes* are what they lead to, by number, 0 being the root; *pieces* are the runs
// of sparse members; *names* is where entries and symlinks have their bytes. Every number in it is
// checked where it is used: what does not fit is kHandUp, and control says what is wrong.
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
#include "sys/unique_fd.hpp"

namespace zc {

class Catalogue {
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

    Catalogue(Sections sections, const Version& version, const Shown& shown, sys::UniqueFd file);

    // Each of these returns 0, a -errno or kHandUp.
    int lookup(std::uint32_t directory, std::string_view name, std::uint32_t& into) const;
    int attributes(std::uint32_t node, abi::Attr& into) const;
    int target(std::uint32_t node, std::string_view& into) const;
    // Where a file's bytes are; kHandUp if the archive has changed or does not hold the bytes as
    // they are.
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
    std::size_t bytes() const noexcept { return sections_.bytes(); }
    bool has_file() const noexcept { return file_ != nullptr; }

  private:
    struct Node;
    int node(std::uint32_t number, Node& into) const;
    int sparse(const Node& node, std::vector<Extent>& into) const;
    bool append(std::uint64_t offset, std::uint64_t length, std::vector<Extent>& into) const;

    const Sections sections_;
    const Version version_;
    const Shown shown_;
    const std::uint64_t file_id_ = next_file_id();
    std::shared_ptr<const sys::UniqueFd> file_;
    std::unordered_map<std::uint32_t, std::uint32_t> above_;  // of directories
};

}  // namespace zc
