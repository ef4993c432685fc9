// MKDIR.
#include "serve/ops/change.hpp"

namespace zc::ops {

bool mkdir(Context& context, const Request& request) {
    abi::MkdirIn wanted{};
    Spot spot;
    if (!request.parse(wanted)) {
        return false;
    }
    int error = find_spot(context, request.header.nodeid, request.name(sizeof wanted), spot);
    if (error == 0) {
        context.identity.use_umask(wanted.umask);
        error = as_caller(context, request, groups_for(wanted.mode),
                          [&] { return sys::make_directory(spot.fd(), spot.name, wanted.mode); });
    }
    return error == 0 ? answer_made(context, request, spot) : request.failed(error);
}

}  // namespace zc::ops
