// ACCESS, for mounts without `default_permissions`: the kernel answers it itself otherwise. Decided
// by the mode; where it hangs on a caller's other groups, control is asked.
#include <unistd.h>

#include <cerrno>

#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

constexpr unsigned kEveryExecute = 0111;

bool may_as_root(const struct ::statx& status, unsigned mask) noexcept {
    return (mask & X_OK) == 0 || S_ISDIR(status.stx_mode) || (status.stx_mode & kEveryExecute) != 0;
}

}  // namespace

bool access(Context& context, const Request& request) {
    abi::AccessIn access{};
    struct ::statx status {};
    if (!request.parse(access)) {
        return false;
    }
    Validity validity;
    if (const int error =
            context.leased_nodes().status(request.header.nodeid, context.counts, status, validity);
        error != 0) {
        return request.failed(error);
    }
    const unsigned mask = access.mask & (R_OK | W_OK | X_OK);
    const unsigned mode = status.stx_mode;
    bool granted = false;
    if ((mask & W_OK) != 0 && context.state.config.read_only) {
        granted = false;
    } else if (request.header.uid == 0) {
        granted = may_as_root(status, mask);
    } else if (request.header.uid == status.stx_uid) {
        granted = (mask & ~(mode >> 6)) == 0;
    } else if (request.header.gid == status.stx_gid) {
        granted = (mask & ~(mode >> 3)) == 0;
    } else if (((mask & ~(mode >> 3)) == 0) != ((mask & ~mode) == 0)) {
        return false;
    } else {
        granted = (mask & ~mode) == 0;
    }
    static_cast<void>(granted ? request.done() : request.fail(-EACCES));
    return true;
}

}  // namespace zc::ops
