#include "serve/backings.hpp"

#include <cerrno>
#include <cstring>

#include "sys/syscalls.hpp"

namespace zc {

namespace {

// The reason that status shows: the error and its remedy.
std::string passthrough_reason(int error) {
    switch (-error) {
        case EPERM:
            return "passthrough: EPERM (needs CAP_SYS_ADMIN)";
        case ELOOP:
            return "passthrough: ELOOP (the backing filesystem is itself stacked: --stack-depth 2)";
        case ENOTTY:
        case ENOSYS:
            return "passthrough: ENOSYS (the kernel has none: Linux 6.9, CONFIG_FUSE_PASSTHROUGH)";
        default:
            return std::string("passthrough: ") + ::strerrorname_np(-error);
    }
}

}  // namespace

void Backings::set_session(std::shared_ptr<const DeviceChannel> session) {
    const std::lock_guard guard(lock_);
    session_.swap(session);
}

std::pair<std::shared_ptr<const BackingId>, std::string> Backings::add(int fd) const {
    if (mode_ != Mode::automatic && mode_ != Mode::passthrough) {
        return {nullptr, ""};
    }
    if (negotiation_.immutable()) {
        return {nullptr, "passthrough: not on an immutable mount (opens carry no message)"};
    }
    if (!negotiation_.outcome().passthrough()) {
        return {nullptr, passthrough_reason(-ENOSYS)};
    }
    std::shared_ptr<const DeviceChannel> session;
    {
        const std::lock_guard guard(lock_);
        session = session_;
    }
    if (!session) {
        return {nullptr, passthrough_reason(-ENOTCONN)};
    }
    const int id = sys::backing_open(session->fd(), fd);
    if (id <= 0) {
        return {nullptr, passthrough_reason(id == 0 ? -EINVAL : id)};
    }
    return {std::make_shared<const BackingId>(session, id), ""};
}

}  // namespace zc
