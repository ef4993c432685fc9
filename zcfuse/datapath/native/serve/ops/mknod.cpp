// MKNOD: a device, a FIFO, a socket, or a regular file that is not opened with it.
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>

#include "serve/ops/recorded.hpp"

namespace zc::ops {

namespace {

// struct fuse_mknod_in holds it as the kernel's new_encode_dev() has it.
dev_t decoded_device(std::uint32_t encoded) noexcept {
    return ::makedev((encoded >> 8) & 0xFFF, (encoded & 0xFF) | ((encoded >> 12) & 0xFFF00));
}

}  // namespace

bool mknod(Context& context, const Request& request) {
    abi::MknodIn wanted{};
    Spot spot;
    if (!request.parse(wanted)) {
        return false;
    }
    const auto parent = request.header.nodeid;
    if (S_ISCHR(wanted.mode) && wanted.rdev == 0 && context.leased_nodes().is_in_union(parent)) {
        return request.failed(-EPERM);  // a whiteout
    }
    int error = find_spot(context, parent, request.name(sizeof wanted), spot);
    const auto type = (wanted.mode & S_IFMT) == 0 ? S_IFREG : wanted.mode & S_IFMT;
    if (error == 0 && !was_made(context, request, spot, type)) {
        context.identity.use_umask(wanted.umask);
        error = make_as_caller(context, request, spot, groups_for(wanted.mode), false,
                               [&](int directory, const char* name) {
                                   return sys::make_node(directory, name, wanted.mode,
                                                         decoded_device(wanted.rdev));
                               });
    }
    return error == 0 ? answer_made(context, request, spot) : request.failed(error);
}

}  // namespace zc::ops
