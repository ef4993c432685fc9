// READLINK.
#include "serve/ops/operation.hpp"

namespace zc::ops {

bool readlink(Context& context, const Request& request) {
    std::string target;
    if (const int error =
            context.leased_nodes().read_link(request.header.nodeid, context.counts, target);
        error != 0) {
        return request.failed(error);
    }
    request.answer(std::as_bytes(std::span(target)));
    return true;
}

}  // namespace zc::ops
