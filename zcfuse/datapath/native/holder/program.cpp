#include "holder/program.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace zc::holder {

namespace {

bool has_closed(int socket) noexcept {
    pollfd one{socket, 0, 0};
    return ::poll(&one, 1, 0) > 0;
}

}  // namespace

std::optional<Program> Program::connected(sys::UniqueFd socket) noexcept {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
        peer.uid != ::geteuid() || peer.pid <= 0) {
        return std::nullopt;
    }
    sys::UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0)));
    // If it died before, another process may have its number now; but then its end is closed.
    if (!process || has_closed(socket.get())) {
        return std::nullopt;
    }
    return Program(std::move(socket), std::move(process));
}

bool Program::ended() const noexcept {
    pollfd one{process_.get(), POLLIN, 0};
    return socket() < 0 || ::poll(&one, 1, 0) > 0;
}

}  // namespace zc::holder
