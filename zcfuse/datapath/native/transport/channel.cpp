#include "transport/channel.hpp"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace zc {

ssize_t Channel::reply_error(std::uint64_t unique, int error) const noexcept {
    // The kernel refuses a reply with any other number (EINVAL) and keeps waiting; a backing
    // filesystem may return one (ENOTSUPP is 524).
    const bool is_errno = error < 0 && error > -512;
    abi::OutHeader header{sizeof(abi::OutHeader), is_errno ? error : -EIO, unique};
    const std::array<iovec, 1> pieces{{{&header, sizeof header}}};
    return reply(pieces);
}

ssize_t NoChannel::receive(std::span<std::byte>) const noexcept {
    return -ECANCELED;
}

ssize_t NoChannel::reply(std::span<const iovec> pieces) const noexcept {
    ssize_t size = 0;
    for (const auto& piece : pieces) {
        size += static_cast<ssize_t>(piece.iov_len);
    }
    return size;
}

ssize_t NoChannel::reply_from_pipe(int, std::size_t, std::span<std::byte>) const noexcept {
    return -EOPNOTSUPP;
}

void DeviceChannel::wait() const noexcept {
    constexpr int kMilliseconds = 1000;
    pollfd polled{fd_.get(), POLLIN, 0};
    ::poll(&polled, 1, kMilliseconds);
}

bool DeviceChannel::sever(int instead) const noexcept {
    return ::dup2(instead, fd_.get()) >= 0;
}

ssize_t DeviceChannel::reply_from_pipe(int pipe, std::size_t size,
                                       std::span<std::byte> scratch) const noexcept {
    if (device_) {
        return sys::splice_out(pipe, fd_.get(), size);
    }
    if (scratch.size() < size) {
        return -EMSGSIZE;
    }
    std::size_t have = 0;
    while (have < size) {
        const auto n = sys::read(pipe, scratch.data() + have, size - have);
        if (n <= 0) {
            return n < 0 ? n : -EPIPE;
        }
        have += static_cast<std::size_t>(n);
    }
    const std::array<iovec, 1> pieces{{{scratch.data(), size}}};
    return reply(pieces);
}

}  // namespace zc
