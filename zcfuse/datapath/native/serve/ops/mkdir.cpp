// MKDIR.
#include <sys/stat.h>

#include "serve/ops/recorded.hpp"

namespace zc::ops {

bool mkdir(Context& context, const Request& request) {
    abi::MkdirIn wanted{};
    Spot spot;
    if (!request.parse(wanted)) {
        return false;
    }
    int error = find_spot(context, request.header.nodeid, request.name(sizeof wanted), spot);
    const bool made = error == 0 && was_made(context, request, spot, S_IFDIR);
    if (made && spot.as_union() != nullptr) {
        error = spot.as_union()->complete_directory(spot.name);
    } else if (error == 0 && !made) {
        context.identity.use_umask(wanted.umask);
        error = make_as_caller(context, request, spot, groups_for(wanted.mode), true,
                               [&](int directory, const char* name) {
                                   return sys::make_directory(directory, name, wanted.mode);
                               });
    }
    return error == 0 ? answer_made(context, request, spot) : request.failed(error);
}

}  // namespace zc::ops
