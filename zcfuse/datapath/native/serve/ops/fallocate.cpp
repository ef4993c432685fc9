// FALLOCATE: room for a file, holes and zeros in it.
#include <cerrno>

#include "serve/ops/change.hpp"

namespace zc::ops {

bool fallocate(Context& context, const Request& request) {
    abi::FallocateIn wanted{};
    if (!is_own(request.header.nodeid) || !request.parse(wanted)) {
        return false;
    }
    const auto file = context.leased_nodes().files().writer(request.header.nodeid);
    if (!file) {
        return request.failed(-EBADF);
    }
    const int error = as_caller(context, request, Groups::at_once, [&] {
        return sys::allocate(file->get(), static_cast<int>(wanted.mode), wanted.offset,
                             wanted.length);
    });
    return error == 0 ? request.done() || true : request.failed(error);
}

}  // namespace zc::ops
