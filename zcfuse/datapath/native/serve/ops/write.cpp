// WRITE: of files without passthrough, from the buffer that the request came in.
//
// Written as the client, so that the backing filesystem clears set-id bits and counts quotas for
// it; but not what the kernel sends from its page cache, which says nothing about a client.
#include <cerrno>

#include "serve/ops/change.hpp"

namespace zc::ops {

namespace {

// Writes all of it, unless there is an error: then it returns how much was written before.
ssize_t write_all(int file, std::span<const std::byte> data, std::uint64_t offset) {
    std::size_t written = 0;
    while (written < data.size()) {
        const auto n = sys::pwrite(file, data.subspan(written), offset + written);
        if (n <= 0) {
            return written > 0 ? static_cast<ssize_t>(written) : n;
        }
        written += static_cast<std::size_t>(n);
    }
    return static_cast<ssize_t>(written);
}

}  // namespace

bool write(Context& context, const Request& request) {
    const auto nodeid = request.header.nodeid;
    abi::WriteIn wanted{};
    if (!is_own(nodeid)) {
        return false;
    }
    if (!request.parse(wanted) || request.body.size() - sizeof wanted < wanted.size) {
        return request.failed(-EINVAL);
    }
    const auto file = context.leased_nodes().files().writer(nodeid);
    if (!file) {
        return request.failed(-EBADF);
    }
    const auto data = request.body.subspan(sizeof wanted, wanted.size);
    ssize_t written = 0;
    const auto put = [&] { return written = write_all(file->get(), data, wanted.offset); };
    if ((wanted.write_flags & abi::kWriteFromCache) != 0) {
        put();
    } else {
        const int error = as_caller(context, request, Groups::where_refused, put);
        written = error < 0 ? error : written;
    }
    if (written < 0) {
        return request.failed(static_cast<int>(written));
    }
    request.answer_with(abi::WriteOut{static_cast<std::uint32_t>(written), 0});
    return true;
}

}  // namespace zc::ops
