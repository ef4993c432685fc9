// IOCTL: none is supported, which is ENOTTY. Frequent all the same: a program that asks of every
// file that it opens whether it is a terminal, as Python's open() does, sends one.
#include <cerrno>

#include "serve/ops/operation.hpp"

namespace zc::ops {

bool ioctl(Context& context, const Request& request) {
    return context.mirrors().leased(request.header.nodeid) == 0 && request.failed(-ENOTTY);
}

}  // namespace zc::ops
