// Where the kernel's requests come from and their replies go to. Two kinds: DeviceChannel here, one
// descriptor of /dev/fuse; and RingQueue (transport/ring_queue.hpp), one CPU's queue of an
// io_uring.
//
// A reply must be given to the channel that its request came from: each has its own list of
// requests in progress, and another answers ENOENT. Replies may be given by any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "abi/fuse.hpp"
#include "sys/syscalls.hpp"

namespace zc {

class Channel {
  public:
    Channel() = default;
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;
    virtual ~Channel() = default;

    // One whole request. Returns its size, 0 when the peer of a socket is gone, or -errno: ENODEV
    // after an unmount, ECONNABORTED after an abort, EINTR when the thread shall look up, ENOENT
    // when the request was withdrawn meanwhile, ECANCELED when this channel is not in use and the
    // connection goes on (or ends) without it.
    virtual ssize_t receive(std::span<std::byte> buffer) const noexcept = 0;
    // Waits a bounded time until there may be something to receive, after EAGAIN.
    virtual void wait() const noexcept = 0;

    // One whole reply, gathered, its header first. Returns its size or -errno (ENOENT: nobody waits
    // for it any more).
    virtual ssize_t reply(std::span<const iovec> pieces) const noexcept = 0;
    ssize_t reply_error(std::uint64_t unique, int error) const noexcept;

    // One whole reply of `size` bytes that lies in a pipe, or -EOPNOTSUPP. `scratch` is used only
    // over a socket, where a splice would not keep the message in one piece; it must hold `size`
    // bytes.
    virtual ssize_t reply_from_pipe(int pipe, std::size_t size,
                                    std::span<std::byte> scratch) const noexcept = 0;

    // Where a reply's payload may be built in place, so that reply() has nothing to copy: the
    // request's own buffer. Empty where a reply is written by a system call.
    virtual std::span<std::byte> payload(std::uint64_t unique) const noexcept = 0;
    // How many of a payload's first bytes are locked into memory.
    virtual std::size_t locked_payload() const noexcept { return 0; }
    // A ring has one thread a CPU, and nothing else takes that CPU's requests while it waits.
    virtual bool is_ring() const noexcept = 0;
};

// /dev/fuse or a clone of it, or, in tests, one end of a SEQPACKET socket pair on whose other end
// somebody plays the kernel. Safe from several threads at once.
class DeviceChannel final : public Channel {
  public:
    DeviceChannel(sys::UniqueFd fd, bool device) noexcept : fd_(std::move(fd)), device_(device) {}

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

    // Lets go of the kernel's side at once, also while other threads use it, by putting `instead`
    // in its place. The connection ends when the last descriptor of it is gone and no call is under
    // way.
    bool sever(int instead) const noexcept;

    int fd() const noexcept { return fd_.get(); }
    bool device() const noexcept { return device_; }

  private:
    sys::UniqueFd fd_;
    bool device_;
};

}  // namespace zc
