#include "serve/backings.hpp"

#include <fcntl.h>

#include <cerrno>
#include <cstring>

#include "sys/files.hpp"
#include "sys/syscalls.hpp"

namespace zc {

namespace {

Cause passthrough_refused(int error, std::uint32_t stack_depth) {
    switch (-error) {
        case EPERM:
            return {Reason::passthrough_not_permitted};
        case ELOOP:
            return {stack_depth < kMostStackDepth ? Reason::passthrough_stacked
                                                  : Reason::passthrough_stacked_twice};
        case ENOTTY:
        case ENOSYS:
            return {Reason::passthrough_not_offered};
        default:
            return {Reason::passthrough_refused, ::strerrorname_np(-error)};
    }
}

}  // namespace

void Backings::set_session(std::shared_ptr<const DeviceChannel> session) {
    const std::lock_guard guard(lock_);
    session_.swap(session);
}

std::shared_ptr<const DeviceChannel> Backings::session() const {
    const std::lock_guard guard(lock_);
    return session_;
}

std::pair<std::shared_ptr<const BackingId>, Cause> Backings::add(int fd, Keeps keeps) const {
    if (mode_ != Mode::automatic && mode_ != Mode::passthrough) {
        return {nullptr, {}};
    }
    if (negotiation_.silent_opens()) {
        return {nullptr, {Reason::passthrough_silent}};
    }
    if (!negotiation_.outcome().passthrough()) {
        return {nullptr, {Reason::passthrough_not_offered}};
    }
    const auto session = this->session();
    if (!session) {
        return {nullptr, {Reason::passthrough_refused, "ENOTCONN"}};
    }
    sys::UniqueFd another;
    if (keeps == Keeps::another) {
        // An older kernel registers no O_PATH descriptor.
        if (const int error = sys::reopen(fd, O_RDONLY | O_NONBLOCK, another); error != 0) {
            return {nullptr, passthrough_refused(error, negotiation_.stack_depth())};
        }
    }
    const int id = sys::backing_open(session->fd(), another ? another.get() : fd);
    if (id <= 0) {
        return {nullptr, passthrough_refused(id == 0 ? -EINVAL : id, negotiation_.stack_depth())};
    }
    return {std::make_shared<const BackingId>(session, handles_, id), {}};
}

}  // namespace zc
