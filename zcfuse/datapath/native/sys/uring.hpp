// One io_uring whose commands all go to one file, /dev/fuse: what liburing does, with -errno and
// the seam for faults. Made disabled, in any thread; used by the one thread that enables it.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>

namespace zc::sys {

class Uring {
  public:
    struct Completion {
        std::uint64_t tag;
        int result;
    };

    // Throws std::system_error. `commands`: how many may be under way at once.
    Uring(unsigned commands, int device);
    Uring(const Uring&) = delete;
    Uring& operator=(const Uring&) = delete;
    ~Uring();

    int enable() noexcept;
    // Queue a command, to be sent by submit(). -EBUSY when too many are queued.
    int add_register(std::uint64_t tag, std::uint16_t queue,
                     std::span<const iovec> buffers) noexcept;
    // A REGISTER that the kernel refuses.
    int add_withdrawal() noexcept;
    int add_commit(std::uint64_t tag, std::uint16_t queue, std::uint64_t commit_id) noexcept;
    int add_read(std::uint64_t tag, int fd, std::uint64_t& into) noexcept;
    bool has_queued() const noexcept;
    // Sends what is queued, and waits until `wait` completions are there. 0 or -errno: EINTR when a
    // signal came first, with everything sent all the same.
    int submit(unsigned wait) noexcept;
    // The next completion that is there already. Returns false when there is none.
    bool next(Completion& into) noexcept;
    unsigned ready() const noexcept;  // how many there are
    // Cancels all that is under way and lets go of the file.
    void close() noexcept;

  private:
    struct Ring;
    std::unique_ptr<Ring> ring_;
};

}  // namespace zc::sys
