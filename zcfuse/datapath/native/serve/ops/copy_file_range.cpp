// COPY_FILE_RANGE: the backing filesystem copies, or shares the extents where it can.
#include <algorithm>
#include <cerrno>

#include "serve/ops/change.hpp"

namespace zc::ops {

namespace {

// One request copies this much, so that it does not hold its thread for long; the client asks for
// the rest.
constexpr std::uint64_t kMostAtOnce = 64 << 20;

}  // namespace

bool copy_file_range(Context& context, const Request& request) {
    abi::CopyFileRangeIn wanted{};
    if (!request.parse(wanted) || !is_own(request.header.nodeid) || !is_own(wanted.nodeid_out)) {
        return request.failed(-EXDEV);
    }
    auto& files = context.leased_nodes().files();
    const auto from = files.in_use(request.header.nodeid);
    const auto to = files.writer(wanted.nodeid_out);
    if (!from || from->whole_file() == nullptr || !to) {
        return request.failed(-EXDEV);  // the kernel then copies by reading and writing
    }
    ssize_t copied = 0;
    const int error = as_caller(context, request, Groups::at_once, [&] {
        copied = sys::copy_range(from->whole_file()->get(), wanted.offset_in, to->get(),
                                 wanted.offset_out, std::min(wanted.length, kMostAtOnce));
        return copied < 0 ? static_cast<int>(copied) : 0;
    });
    if (error != 0) {
        return request.failed(error);
    }
    if (static_cast<abi::Opcode>(request.header.opcode) == abi::Opcode::copy_file_range_64) {
        request.answer_with(abi::CopyFileRangeOut{static_cast<std::uint64_t>(copied)});
    } else {
        request.answer_with(abi::WriteOut{static_cast<std::uint32_t>(copied), 0});
    }
    return true;
}

}  // namespace zc::ops
