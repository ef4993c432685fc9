// One serving thread splices its replies through this pipe. A reply is assembled in it (header,
// then the pages) and leaves it whole. A pipe that might still hold bytes is replaced, never
// reused. Owned by one thread.
//
// The header goes in first, by reference to a page that this object owns, because its length field
// is known only once the pages are in: patch() may be called until the reply has left. The page is
// shared memory, so that a fork cannot leave the pipe with an old copy of it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "abi/fuse.hpp"
#include "sys/syscalls.hpp"

namespace zc {

class ReplyPipe {
  public:
    // Makes a pipe that holds a reply of `payload` bytes at any alignment where the system allows
    // it (F_SETPIPE_SZ beyond /proc/sys/fs/pipe-max-size needs CAP_SYS_RESOURCE, pipe(7)).
    explicit ReplyPipe(std::size_t payload) noexcept;
    ReplyPipe(const ReplyPipe&) = delete;
    ReplyPipe& operator=(const ReplyPipe&) = delete;
    ~ReplyPipe();

    bool usable() const noexcept { return write_end_ && header_ != nullptr; }
    // The pipe slots that `size` bytes at `offset` of a file take: one for each page touched.
    static std::size_t slots_of(std::uint64_t offset, std::size_t size) noexcept;
    // Whether so many fit beside the header.
    bool fits(std::size_t wanted) const noexcept { return 1 + wanted <= slots_; }
    std::size_t slots() const noexcept { return slots_; }

    // Each returns the bytes moved or -errno.
    ssize_t put_header(std::uint64_t unique) noexcept;
    ssize_t splice(int file, std::uint64_t offset, std::size_t size) noexcept;
    ssize_t map(std::span<const iovec> pieces) noexcept;
    void patch(std::size_t payload) noexcept;

    int read_end() const noexcept { return read_end_.get(); }
    // Throws away whatever is in it, by making another.
    void renew() noexcept;

  private:
    std::size_t wanted_;
    std::size_t slots_ = 0;
    sys::UniqueFd read_end_;
    sys::UniqueFd write_end_;
    abi::OutHeader* header_ = nullptr;
};

}  // namespace zc
