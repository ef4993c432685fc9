// GETATTR: what the node is now, by its name or, while it is open, by its descriptor.
#include "serve/ops/operation.hpp"

namespace zc::ops {

bool getattr(Context& context, const Request& request) {
    struct ::statx status {};
    Validity validity;
    const bool keeps = keeps_attributes(context, request.header.nodeid);
    if (const int error =
            context.leased_nodes().status(request.header.nodeid, context.counts, status, validity);
        error != 0) {
        return request.failed(error);
    }
    // The kernel's FUSE does not see a store through a mapping. So it must not cache attributes of
    // a file that is being written.
    if (context.leased_nodes().files().is_written(request.header.nodeid) ||
        (!keeps && S_ISREG(status.stx_mode))) {
        validity = {};
    }
    request.answer_with(
        abi::AttrOut{validity.seconds, validity.nanoseconds, 0, attributes_of(status)});
    return true;
}

}  // namespace zc::ops
