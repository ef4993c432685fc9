// WRITE: of files without passthrough, from the buffer that the request came in.
//
// Written as the client, so that the backing filesystem clears set-id bits and counts quotas for
// it; but not what the kernel sends from its page cache, which says nothing about a client.
#include <fcntl.h>

#include <algorithm>
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

// What an earlier process wrote of the same request to a file that is only appended to: there the
// offset has no effect, and to write again would append again.
std::size_t written_before(const Request& request, int file, const abi::WriteIn& wanted) {
    struct ::statx status {};
    if ((request.header.unique & abi::kResendBit) == 0 ||
        (::fcntl(file, F_GETFL) & O_APPEND) == 0 || sys::status_of(file, "", false, status) != 0 ||
        status.stx_size <= wanted.offset) {
        return 0;
    }
    return std::min<std::size_t>(status.stx_size - wanted.offset, wanted.size);
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
    const auto before = written_before(request, file->get(), wanted);
    const auto data = request.body.subspan(sizeof wanted + before, wanted.size - before);
    ssize_t written = 0;
    const auto put = [&] { return written = write_all(file->get(), data, wanted.offset + before); };
    if ((wanted.write_flags & abi::kWriteFromCache) != 0) {
        put();
    } else {
        const int error = as_caller(context, request, Groups::where_refused, put);
        written = error < 0 ? error : written;
    }
    if (written < 0) {
        return request.failed(static_cast<int>(written));
    }
    written += static_cast<ssize_t>(before);
    request.answer_with(abi::WriteOut{static_cast<std::uint32_t>(written), 0});
    return true;
}

}  // namespace zc::ops
