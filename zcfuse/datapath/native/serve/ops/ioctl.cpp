// IOCTL: the flags and the project of a file (FS_IOC_GETFLAGS and its like), which chattr(1) and
// lsattr(1) ask for; anything else is ENOTTY. That is frequent all the same: a program that asks of
// every file that it opens whether it is a terminal, as Python's open() does, sends one.
#include <linux/fs.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "serve/forget_names.hpp"
#include "serve/ops/change.hpp"

namespace zc::ops {

namespace {

// The largest argument: struct fsxattr.
constexpr std::size_t kMostArgument = sizeof(struct fsxattr);

bool asks(std::uint32_t command) noexcept {
    return command == FS_IOC_GETFLAGS || command == FS_IOC_FSGETXATTR;
}

bool sets(std::uint32_t command) noexcept {
    return command == FS_IOC_SETFLAGS || command == FS_IOC_FSSETXATTR;
}

int run(Context& context, const Request& request, const abi::IoctlIn& wanted, void* argument) {
    Held held;
    sys::UniqueFd file;
    int error = held.open(context, request.header.nodeid,
                          sets(wanted.command) ? Held::Use::change : Held::Use::look);
    if (error == 0) {
        error = sys::reopen(held.get(), O_RDONLY | O_NONBLOCK, file);
    }
    if (error != 0) {
        return error;
    }
    return as_caller(context, request, Groups::where_refused,
                     [&] { return sys::file_ioctl(file.get(), wanted.command, argument); });
}

}  // namespace

bool ioctl(Context& context, const Request& request) {
    abi::IoctlIn wanted{};
    const bool known = request.parse(wanted) && (asks(wanted.command) || sets(wanted.command)) &&
                       std::max(wanted.in_size, wanted.out_size) <= kMostArgument &&
                       request.body.size() >= sizeof wanted + wanted.in_size;
    if (!known) {
        return request.failed(-ENOTTY);
    }
    std::array<std::byte, sizeof(abi::IoctlOut) + kMostArgument> reply{};
    auto* argument = reply.data() + sizeof(abi::IoctlOut);
    std::memcpy(argument, request.body.data() + sizeof wanted, wanted.in_size);
    if (const int error = run(context, request, wanted, argument); error != 0) {
        return request.failed(error == kUpcall ? -ENOTTY : error);
    }
    if (sets(wanted.command)) {
        forget_attributes(context.state, request.header.nodeid);  // the change time
    }
    request.answer(std::span(reply).first(sizeof(abi::IoctlOut) + wanted.out_size));
    return true;
}

}  // namespace zc::ops
