// One io_uring whose commands all go to one file, /dev/fuse: a wrapper of liburing with -errno and
// the seam for faults. Any thread creates it, disabled; only the thread that enables it uses it.
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

    // Throws std::system_error. `commands` is the maximum in flight.
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
    // Sends the queue and waits for `wait` completions. 0 or -errno: EINTR if a signal came first,
    // with everything sent.
    int submit(unsigned wait) noexcept;
    // Takes the next completion, without waiting. Returns false if none is ready.
    bool next(Completion& into) noexcept;
    unsigned ready() const noexcept;  // how many there are
    // Cancels everything in flight and releases the file.
    void close() noexcept;

  private:
    struct Ring;
    std::unique_ptr<Ring> ring_;
};

}  // namespace zc::sys
