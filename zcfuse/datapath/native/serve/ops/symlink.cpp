// SYMLINK: the new name, and behind its NUL what the link leads to.
#include <sys/stat.h>

#include <cerrno>

#include "serve/ops/recorded.hpp"

namespace zc::ops {

bool symlink(Context& context, const Request& request) {
    const char* name = request.name();
    const char* target = name == nullptr ? nullptr : request.name(std::strlen(name) + 1);
    if (target == nullptr) {
        return request.failed(-EINVAL);
    }
    Spot spot;
    int error = find_spot(context, request.header.nodeid, name, spot);
    if (error == 0 && !was_made(context, request, spot, S_IFLNK)) {
        error = make_as_caller(context, request, spot, Groups::where_refused, false,
                               [&](int directory, const char* made) {
                                   return sys::make_symlink(directory, made, target);
                               });
    }
    return error == 0 ? answer_made(context, request, spot) : request.failed(error);
}

}  // namespace zc::ops
