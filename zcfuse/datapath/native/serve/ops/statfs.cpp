// STATFS: of the filesystem behind the source.
#include <cerrno>

#include "serve/ops/operation.hpp"

namespace zc::ops {

bool statfs(Context& context, const Request& request) {
    struct ::statvfs status {};
    if (const int error = context.leased_nodes().filesystem_status(request.header.nodeid, status);
        error != 0) {
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
