// LINK: another name for a node. Made from a descriptor of the node, so that it can be no other
// file, and so that a file of O_TMPFILE gets its first name.
#include "serve/ops/change.hpp"

namespace zc::ops {

bool link(Context& context, const Request& request) {
    abi::LinkIn wanted{};
    Spot spot;
    if (!request.parse(wanted)) {
        return false;
    }
    int error = find_spot(context, request.header.nodeid, request.name(sizeof wanted), spot);
    Held file;
    if (error == 0) {
        error = file.open(context, wanted.oldnodeid);
    }
    if (error == 0) {
        error = as_caller(context, request, Groups::where_refused,
                          [&] { return sys::make_link(file.get(), spot.fd(), spot.name); });
    }
    return error == 0 ? answer_made(context, request, spot) : request.failed(error);
}

}  // namespace zc::ops
