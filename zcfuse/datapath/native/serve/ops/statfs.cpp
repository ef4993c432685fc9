// STATFS: of the filesystem that the lease's root is on, of a union that of the top layer.
#include <cerrno>

#include "serve/ops/operation.hpp"

namespace zc::ops {

bool statfs(Context& context, const Request& request) {
    const auto nodeid = request.header.nodeid;
    const auto root = context.mirrors().root_above(nodeid);
    if (!root || context.mirrors().leased(nodeid) != 0) {
        return false;
    }
    struct ::statvfs status {};
    if (const int error = sys::filesystem_status(root->layers.front().fd.get(), status);
        error < 0) {
        return request.failed(error);
    }
    abi::StatfsOut out{};
    out.blocks = status.f_blocks;
    out.bfree = status.f_bfree;
    out.bavail = status.f_bavail;
    out.files = status.f_files;
    out.ffree = status.f_ffree;
    out.bsize = static_cast<std::uint32_t>(status.f_bsize);
    out.namelen = static_cast<std::uint32_t>(status.f_namemax);
    out.frsize = static_cast<std::uint32_t>(status.f_frsize);
    request.answer_with(out);
    return true;
}

}  // namespace zc::ops
