// GETATTR: what the node is now, by its name or, while it is open, by its descriptor.
#include "serve/ops/operation.hpp"

namespace zc::ops {

bool getattr(Context& context, const Request& request) {
    struct ::statx status {};
    Validity validity;
    if (const int error =
            context.mirrors().status(request.header.nodeid, context.counts, status, validity);
        error != 0) {
        return request.failed(error);
    }
    // A store through a mapping is not told to the kernel's FUSE, so a file that is written has no
    // attributes that may be kept.
    if (context.mirrors().files().is_written(request.header.nodeid)) {
        validity = {};
    }
    request.answer_with(
        abi::AttrOut{validity.seconds, validity.nanoseconds, 0, attributes_of(status)});
    return true;
}

}  // namespace zc::ops
