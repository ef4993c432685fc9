// SETXATTR and REMOVEXATTR, POSIX ACLs included: the backing filesystem derives the mode of an ACL
// itself, and clears set-group-id for a client that is not in the group.
#include <cerrno>

#include "serve/ops/change.hpp"

namespace zc::ops {

bool setxattr(Context& context, const Request& request) {
    abi::SetxattrIn wanted{};
    if (!request.parse(wanted) || request.body.size() <= sizeof wanted + wanted.size) {
        return request.failed(-EINVAL);
    }
    const auto value = request.body.last(wanted.size);
    const auto named = request.body.subspan(sizeof wanted)
                           .first(request.body.size() - sizeof wanted - wanted.size);
    if (named.back() != std::byte{0}) {
        return request.failed(-EINVAL);
    }
    const auto* name = reinterpret_cast<const char*>(named.data());
    Held file;
    int error = file.open(context, request.header.nodeid);
    if (error == 0) {
        error = as_caller(context, request, Groups::at_once, [&] {
            return sys::set_xattr(file.get(), name, value, static_cast<int>(wanted.flags));
        });
    }
    return error == 0 ? request.done() || true : request.failed(error);
}

bool removexattr(Context& context, const Request& request) {
    const char* name = request.name();
    if (name == nullptr) {
        return request.failed(-EINVAL);
    }
    Held file;
    int error = file.open(context, request.header.nodeid);
    if (error == 0) {
        error = as_caller(context, request, Groups::where_refused,
                          [&] { return sys::remove_xattr(file.get(), name); });
    }
    return error == 0 ? request.done() || true : request.failed(error);
}

}  // namespace zc::ops
