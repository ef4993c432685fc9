// One descriptor on which the kernel's requests are read and answered: /dev/fuse or a clone of it,
// or, in tests, one end of a SEQPACKET socket pair on whose other end somebody plays the kernel.
//
// A reply must be written to the descriptor that its request was read from: each has its own list
// of requests in progress, and another answers ENOENT. Safe from several threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "abi/fuse.hpp"
#include "sys/syscalls.hpp"

namespace zc {

class Channel {
  public:
    Channel(sys::UniqueFd fd, bool device) noexcept : fd_(std::move(fd)), device_(device) {}

    // One whole request. Returns its size, 0 when the peer of a socket is gone, or -errno: ENODEV
    // after an unmount, ECONNABORTED after an abort, EINTR when the thread shall look up, ENOENT
    // when the request was withdrawn meanwhile.
    ssize_t receive(std::span<std::byte> buffer) const noexcept {
        return sys::read(fd_.get(), buffer.data(), buffer.size());
    }

    // One whole reply, gathered. Returns its size or -errno (ENOENT: nobody waits for it any more).
    ssize_t reply(std::span<const iovec> pieces) const noexcept {
        return sys::writev(fd_.get(), pieces);
    }
    ssize_t reply_error(std::uint64_t unique, int error) const noexcept;

    // One whole reply of `size` bytes that lies in a pipe. `scratch` is used only over a socket,
    // where a splice would not keep the message in one piece; it must hold `size` bytes.
    ssize_t reply_from_pipe(int pipe, std::size_t size,
                            std::span<std::byte> scratch) const noexcept;

    // Waits a bounded time until there may be something to receive; for a non-blocking descriptor.
    void wait() const noexcept;

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
