// Every system call of the data path, behind a wrapper that returns -errno instead of setting
// errno. This is the seam where faults are injected (faults.hpp). No state, safe from any thread.
#pragma once

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "sys/faults.hpp"
#include "sys/unique_fd.hpp"

namespace zc::sys {

// Reading and writing. EINTR is retried if no byte was moved yet, except in read(), whose caller
// must see a signal that asks its thread to end.
ssize_t read(int fd, void* data, std::size_t size) noexcept;
ssize_t preadv(int fd, std::span<const iovec> pieces, std::uint64_t offset) noexcept;
// As preadv, for bytes in memory only: -EAGAIN if it would wait. A short result does not mean the
// end of the file. Only for files that read promptly (below).
ssize_t preadv_nowait(int fd, std::span<const iovec> pieces, std::uint64_t offset) noexcept;
// Whether the bytes seem to be in memory: also those that a disk is being read for.
bool seems_in_memory(int fd, std::uint64_t offset, std::size_t size) noexcept;
// Whether these two tell truly what waits for no other process or machine. False for a file of
// which that takes a question that waits itself (sys::is_near()).
bool reads_promptly(int fd) noexcept;
ssize_t writev(int fd, std::span<const iovec> pieces) noexcept;
ssize_t send(int fd, std::span<const iovec> pieces, int flags) noexcept;
ssize_t recv(int fd, void* data, std::size_t size, int flags) noexcept;

// Pipes. `splice_in` moves from a file at `offset` into a pipe, `splice_out` from a pipe into a
// descriptor. Never SPLICE_F_MOVE: it steals the pages of the backing file's cache.
ssize_t splice_in(int file, std::uint64_t offset, int pipe, std::size_t size) noexcept;
ssize_t splice_out(int pipe, int fd, std::size_t size) noexcept;
ssize_t vmsplice(int pipe, std::span<const iovec> pieces) noexcept;
int pipe_pair(UniqueFd& read_end, UniqueFd& write_end) noexcept;
// Each returns the pipe's current size in bytes, or -errno.
int set_pipe_size(int pipe, std::size_t bytes) noexcept;
int pipe_size(int pipe) noexcept;

// Memory. `mmap` returns MAP_FAILED's place as nullptr and the errno (negative) in `error`.
void* mmap(std::size_t size, int protection, int flags, int fd, std::uint64_t offset,
           int& error) noexcept;
int munmap(void* data, std::size_t size) noexcept;
int mlock(const void* data, std::size_t size) noexcept;
int munlock(const void* data, std::size_t size) noexcept;
int madvise(void* data, std::size_t size, int advice) noexcept;

// Files and descriptors.
int file_size(int fd, std::uint64_t& size) noexcept;
int dup_cloexec(int fd, UniqueFd& copy) noexcept;
int set_socket_buffer(int fd, int option, int forced_option, int bytes) noexcept;

// /dev/fuse (ioctls of abi/fuse.hpp).
int clone_device(int session, UniqueFd& clone) noexcept;
int backing_open(int session, int file) noexcept;  // the backing id (positive), or -errno
int backing_close(int session, int backing_id) noexcept;

pid_t thread_id() noexcept;
std::size_t page_bytes() noexcept;  // the unit of max_pages and of a pipe's slots

}  // namespace zc::sys
