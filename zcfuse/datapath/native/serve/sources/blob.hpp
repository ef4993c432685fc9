// The bytes of one entry of an index, as an expression: whole files, memory and zeros, slices of
// them and their concatenations. A look or an open turns it into runs of bytes.
//
// The result equals the entry's in Python (zcfuse/tree/_content.py, _sources.py, virtual/_file.py);
// a test compares them. Threads: one thread uses a value.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "serve/lease.hpp"
#include "serve/sources/backing_paths.hpp"
#include "sys/unique_fd.hpp"

namespace zc {

// A term of the expression. The terms are in prefix order: a slice comes before its term, a
// concatenation before its `count` parts.
struct BlobTerm {
    enum class Kind : std::uint8_t { file, memory, zeros, slice, concat };
    Kind kind = Kind::zeros;
    bool whole = false;       // of memory: the content is all of its file
    std::uint32_t count = 0;  // of a concatenation
    std::uint64_t offset = 0;
    std::uint64_t length = kWholeFile;  // of a slice, kWholeFile: to the end
    BackingPath path;
    std::shared_ptr<const sys::UniqueFd> memory;
};

class Blob {
  public:
    // Each returns 0, -errno or kUpcall. look() opens nothing and keeps nothing open.
    int look(const std::vector<BlobTerm>& terms, BackingPaths& paths);
    int open(const std::vector<BlobTerm>& terms, BackingPaths& paths);
    // Looks again at the files of a lease that open() made, by their descriptors.
    int look_at_open(const std::vector<BlobTerm>& terms, const FileLease& lease);

    // A number for the files' identities, never 0; and one for their sizes and times.
    std::uint64_t stamp() const noexcept;
    std::uint64_t version() const noexcept;
    std::uint64_t size() const noexcept;
    std::uint64_t sectors() const noexcept;
    // Of a regular file that nothing has been said about.
    unsigned mode() const noexcept;
    // The access ACL that its files have in common, empty where they have none.
    int acl(BackingPaths& paths, std::string& into) const;
    struct Times {
        std::int64_t accessed = 0;
        std::int64_t modified = 0;
        std::int64_t changed = 0;
    };
    // In nanoseconds; all 0 without a file.
    Times times() const noexcept;
    // Whether the youngest file's mtime proves that it has not changed since.
    bool is_settled() const noexcept;
    // The runs for a lease, of what open() opened.
    std::vector<Extent> extents() const;

  private:
    struct Source {
        BackingPath path;
        std::shared_ptr<const sys::UniqueFd> file;
        std::uint64_t id = 0;
        struct ::statx status {};
        bool is_memory = false;
        int acl(BackingPaths* paths, std::string& into) const;
    };
    struct Run {
        int source = -1;  // -1: zeros
        std::uint64_t offset = 0;
        std::uint64_t length = 0;
        bool open_ended = false;
    };
    struct Runs {
        std::vector<Run> runs;
        bool complete = true;
    };
    using Terms = std::vector<BlobTerm>;

    int evaluate(const Terms& terms, BackingPaths& paths);
    int runs_of(const Terms& terms, std::size_t& at, BackingPaths& paths, Runs& into);
    int join(const Terms& terms, std::size_t& at, BackingPaths& paths, Runs& into);
    int source_of(const BlobTerm& term, BackingPaths& paths, int& into);
    int memory_of(const BlobTerm& term);
    static void skip(const Terms& terms, std::size_t& at) noexcept;
    static void cut(Runs& runs, std::uint64_t offset, std::uint64_t length);
    static void append(std::vector<Run>& runs, const Run& run);

    int compare_acls(BackingPaths* paths);

    bool opens_ = false;
    bool acls_differ_ = false;
    std::vector<Source> sources_;
    std::vector<Run> runs_;
};

}  // namespace zc
