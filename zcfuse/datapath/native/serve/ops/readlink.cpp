// READLINK: the link is opened and compared before it is read, so that its target is never that of
// another link which has its name by now.
#include <array>

#include "serve/ops/operation.hpp"

namespace zc::ops {

bool readlink(Context& context, const Request& request) {
    sys::UniqueFd link;
    struct ::statx status {};
    int error = context.mirrors().open(request.header.nodeid, O_PATH, context.counts, link, status);
    if (error != 0) {
        return request.failed(error);
    }
    std::array<char, 4096> target;  // PATH_MAX: the kernel takes no longer one
    const auto size = sys::read_link(link.get(), target.data(), target.size());
    if (size < 0) {
        return request.failed(static_cast<int>(size));
    }
    request.answer(std::as_bytes(std::span(target.data(), static_cast<std::size_t>(size))));
    return true;
}

}  // namespace zc::ops
