// FSYNC, FSYNCDIR and SYNCFS: answered once the backing filesystem has it on its device.
#include <cerrno>

#include "serve/ops/change.hpp"

namespace zc::ops {

namespace {

int open_to_sync(Context& context, std::uint64_t nodeid, OpenFiles::File& into) {
    if ((into = context.leased_nodes().files().writer(nodeid))) {
        return 0;
    }
    sys::UniqueFd file;
    Held held;
    int error = held.open(context, nodeid, Held::Use::look);
    if (error == 0) {
        error = sys::reopen(held.get(), O_RDONLY | O_NONBLOCK, file);
    }
    into = std::make_shared<const sys::UniqueFd>(std::move(file));
    return error;
}

bool sync(Context& context, const Request& request) {
    abi::FsyncIn wanted{};
    OpenFiles::File file;
    if (!request.parse(wanted)) {
        return false;
    }
    int error = open_to_sync(context, request.header.nodeid, file);
    if (error == 0) {
        error = sys::sync_file(file->get(), (wanted.flags & abi::kFsyncDataOnly) != 0);
    }
    return error == 0 ? request.done() || true : request.failed(error);
}

}  // namespace

bool fsync(Context& context, const Request& request) {
    return is_own(request.header.nodeid) && sync(context, request);
}

bool fsyncdir(Context& context, const Request& request) {
    return sync(context, request);
}

bool syncfs(Context& context, const Request& request) {
    OpenFiles::File file;
    int error = open_to_sync(context, request.header.nodeid, file);
    if (error == 0) {
        error = sys::sync_filesystem(file->get());
    }
    return error == 0 ? request.done() || true : request.failed(error);
}

}  // namespace zc::ops
