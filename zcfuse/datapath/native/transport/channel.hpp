// A source of the kernel's requests and the sink of their replies. Two kinds: DeviceChannel here,
// one descriptor of /dev/fuse; and RingQueue (transport/ring_queue.hpp), one CPU's queue of an
// io_uring.
//
// Send a reply to the channel of its request: each has a separate list of requests in progress, and
// others answer ENOENT. Any thread may reply.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "abi/fuse.hpp"
#include "sys/fork_guard.hpp"
#include "sys/syscalls.hpp"

namespace zc {

// READs that the kernel sends ahead, where several users share a mount: it holds back all further
// ones, whoever asks. A user may have half of them wait.
inline constexpr std::uint16_t kSharedBackground = 1024;
inline constexpr std::size_t kMostReadsOfUser = kSharedBackground / 2;

class Channel {
  public:
    Channel() = default;
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;
    virtual ~Channel() = default;

    // Receives one whole request. Returns its size, 0 if a socket's peer is gone, or -errno: ENODEV
    // after an unmount, ECONNABORTED after an abort, EINTR if the thread must check its state,
    // ENOENT if the request was withdrawn, ECANCELED if this channel is unused and the connection
    // continues (or ends) without it.
    virtual ssize_t receive(std::span<std::byte> buffer) const noexcept = 0;
    // After EAGAIN, waits a bounded time for something to receive.
    virtual void wait() const noexcept = 0;

    // Sends one whole reply, gathered, its header first. Returns its size or -errno (ENOENT: the
    // request is gone).
    virtual ssize_t reply(std::span<const iovec> pieces) const noexcept = 0;
    ssize_t reply_error(std::uint64_t unique, int error) const noexcept;

    // Sends one whole reply of `size` bytes from a pipe, or returns -EOPNOTSUPP. Only a socket uses
    // `scratch`, because a splice would not keep the message whole; it must hold `size` bytes.
    virtual ssize_t reply_from_pipe(int pipe, std::size_t size,
                                    std::span<std::byte> scratch) const noexcept = 0;

    // The request's buffer, where a reply's payload may be built in place so that reply() copies
    // nothing. Empty if a system call writes the reply.
    virtual std::span<std::byte> payload(std::uint64_t unique) const noexcept = 0;
    // The number of locked bytes at a payload's start.
    virtual std::size_t locked_payload() const noexcept { return 0; }
    // A ring has one thread per CPU, and no other takes that CPU's requests while it waits.
    virtual bool is_ring() const noexcept = 0;
};

// /dev/fuse or a clone of it. In tests, one end of a SEQPACKET socket pair whose other end plays
// the kernel. Safe from several threads at once.
class DeviceChannel final : public Channel {
  public:
    DeviceChannel(sys::UniqueFd fd, bool device) noexcept
        : fd_(std::move(fd)), guard_(fd_.get()), device_(device) {}

    ssize_t receive(std::span<std::byte> buffer) const noexcept override {
        return sys::read(fd_.get(), buffer.data(), buffer.size());
    }
    void wait() const noexcept override;
    ssize_t reply(std::span<const iovec> pieces) const noexcept override {
        return sys::writev(fd_.get(), pieces);
    }
    ssize_t reply_from_pipe(int pipe, std::size_t size,
                            std::span<std::byte> scratch) const noexcept override;
    std::span<std::byte> payload(std::uint64_t) const noexcept override { return {}; }
    bool is_ring() const noexcept override { return false; }

    // Releases the kernel's side at once, also while other threads use it, by replacing it with
    // `instead`. The connection ends when its last descriptor is gone and no call is in progress.
    bool sever(int instead) const noexcept;

    int fd() const noexcept { return fd_.get(); }
    bool device() const noexcept { return device_; }

  private:
    sys::UniqueFd fd_;
    sys::ForkGuard guard_;
    bool device_;
};

// Brings no requests, and drops replies: of requests that no kernel waits for.
class NoChannel final : public Channel {
  public:
    ssize_t receive(std::span<std::byte>) const noexcept override;
    void wait() const noexcept override {}
    ssize_t reply(std::span<const iovec> pieces) const noexcept override;
    ssize_t reply_from_pipe(int, std::size_t, std::span<std::byte>) const noexcept override;
    std::span<std::byte> payload(std::uint64_t) const noexcept override { return {}; }
    bool is_ring() const noexcept override { return false; }
};

}  // namespace zc
