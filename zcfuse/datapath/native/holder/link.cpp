#include "holder/link.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>

namespace zc::holder {

std::optional<Message> Link::receive(sys::UniqueFd& with) noexcept {
    Message message;
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
    iovec piece{&message, sizeof message};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    const auto n = ::recvmsg(socket_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            socket_.reset();
        }
        return std::nullopt;
    }
    if (const cmsghdr* first = CMSG_FIRSTHDR(&header);
        first != nullptr && first->cmsg_type == SCM_RIGHTS) {
        int descriptor = -1;
        std::memcpy(&descriptor, CMSG_DATA(first), sizeof descriptor);
        with.reset(descriptor);
    }
    if (n != sizeof message) {
        return std::nullopt;
    }
    return message;
}

bool Link::send_bytes(const void* bytes, std::size_t size, int with) const noexcept {
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
    iovec piece{const_cast<void*>(bytes), size};
    msghdr header{};
    header.msg_iov = &piece;
    header.msg_iovlen = 1;
    if (with >= 0) {
        header.msg_control = control.data();
        header.msg_controllen = control.size();
        cmsghdr* const first = CMSG_FIRSTHDR(&header);
        first->cmsg_level = SOL_SOCKET;
        first->cmsg_type = SCM_RIGHTS;
        first->cmsg_len = CMSG_LEN(sizeof with);
        std::memcpy(CMSG_DATA(first), &with, sizeof with);
    }
    // All that a process is sent has room in its socket; one that does not read must not hold up
    // the holder.
    return ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) ==
           static_cast<ssize_t>(size);
}

bool Link::send_bytes_whenever(const void* bytes, std::size_t size, int with) const noexcept {
    constexpr int kPatienceMs = 5000;
    constexpr int kPauseMs = 10;
    int waited = 0;
    while (!send_bytes(bytes, size, with)) {
        pollfd room{socket_.get(), POLLOUT, 0};
        if (errno == ETOOMANYREFS && waited < kPatienceMs) {
            // The user has too many descriptors on their way, which no poll waits for.
            ::poll(nullptr, 0, kPauseMs);
            waited += kPauseMs;
        } else if ((errno != EAGAIN && errno != EINTR) || ::poll(&room, 1, kPatienceMs) <= 0) {
            return false;
        }
    }
    return true;
}

int poll_milliseconds(std::chrono::steady_clock::time_point until) noexcept {
    using std::chrono::steady_clock;
    if (until == steady_clock::time_point::max()) {
        return -1;
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - steady_clock::now());
    return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
}

}  // namespace zc::holder
