// A frozen image: names, attributes, and where the bytes of files lie, as EROFS has them on disk
// (Linux: fs/erofs/erofs_fs.h; which part of it images use: zcfuse/frozen/_layout.py).
//
// Nothing of an image is trusted. Each number is checked where it is used, and one that does not
// fit is -EIO. The image is read and not mapped: a file that somebody truncates would end whoever
// touches its mapping.
//
// Threads: immutable, so any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sys/unique_fd.hpp"

namespace zc {

class ErofsImage {
  public:
    // The parts behind the blocks of EROFS, as the image describes them.
    struct About {
        std::vector<std::uint64_t> device_sizes;  // of the files that blocks lie in
        std::uint64_t pieces_offset = 0;          // the table of pieces
        std::uint64_t pieces_bytes = 0;
        std::uint64_t content = 0;  // a number of all its bytes
    };

    // Throws std::system_error: EIO if its superblock is not one of EROFS.
    ErofsImage(sys::UniqueFd file, About about);

    std::uint64_t root() const noexcept { return root_; }
    std::uint64_t size() const noexcept { return size_; }
    std::uint64_t content() const noexcept { return about_.content; }
    const std::shared_ptr<const sys::UniqueFd>& file() const noexcept { return file_; }

    struct Inode {
        std::uint32_t mode = 0;
        std::uint32_t nlink = 0;
        std::uint32_t uid = 0;
        std::uint32_t gid = 0;
        std::uint32_t rdev_major = 0;
        std::uint32_t rdev_minor = 0;
        std::uint64_t size = 0;
        std::int64_t mtime_s = 0;
        std::uint32_t mtime_ns = 0;

        std::uint64_t nid = 0;
        std::uint32_t layout = 0;
        std::uint32_t number = 0;  // the first block, or the form of the chunks
        std::uint64_t xattrs = 0;  // offset
        std::size_t xattr_bytes = 0;
        std::uint64_t body = 0;  // offset of what follows the attributes
    };
    // Each of these returns 0 or -errno.
    int inode(std::uint64_t nid, Inode& into) const;
    int lookup(const Inode& directory, std::string_view name, std::uint64_t& into) const;
    int target(const Inode& link, std::string& into) const;

    struct Entry {
        std::string name;
        std::uint64_t nid = 0;
        std::uint64_t next = 0;  // the position behind it
    };
    // The entries of a directory from a position on, to the end of a block; none at the end. They
    // are in the order of their names' bytes, with "." and ".." among them. 0 is the first
    // position.
    int entries(const Inode& directory, std::uint64_t position, std::vector<Entry>& into) const;

    // The extended attributes as clients see them: without the marks of overlayfs, which the image
    // itself uses.
    int xattr(const Inode& inode, std::string_view name, std::string& into) const;
    int xattr_names(const Inode& inode, std::vector<std::string>& into) const;

    // A run of bytes of a file. Device 0 is the image, kHole a hole, others count from 1.
    struct Run {
        std::int32_t device = 0;
        std::uint64_t offset = 0;
        std::uint64_t length = 0;
    };
    static constexpr std::int32_t kHole = -1;
    // Where the bytes of a regular file lie: in a whole file below one of the image's roots, or in
    // pieces.
    struct Data {
        std::optional<std::string> redirect;
        std::vector<Run> pieces;
    };
    int place(const Inode& inode, Data& into) const;

  private:
    using Range = std::pair<std::uint64_t, std::uint64_t>;  // offset and length in the image
    struct Xattr {
        std::string name;
        std::string value;
    };
    class Block;  // of a directory
    bool holds(std::uint64_t offset, std::uint64_t length) const noexcept;
    int read(std::uint64_t offset, std::span<char> into) const;
    int read(std::uint64_t offset, std::size_t length, std::string& into) const;
    int ranges(const Inode& inode, std::vector<Range>& into) const;
    int block(const Inode& directory, std::uint64_t index, Block& into) const;
    std::uint64_t blocks_of(const Inode& directory) const noexcept;
    int all_xattrs(const Inode& inode, std::vector<Xattr>& into) const;
    int chunks(const Inode& inode, std::vector<Run>& into) const;
    int listed(const Inode& inode, std::string_view place, std::vector<Run>& into) const;
    bool fits(const Run& piece) const noexcept;

    const std::shared_ptr<const sys::UniqueFd> file_;
    const About about_;
    std::uint64_t size_ = 0;
    std::uint64_t root_ = 0;
    unsigned bits_ = 0;  // log2 of the size of a block
};

}  // namespace zc
