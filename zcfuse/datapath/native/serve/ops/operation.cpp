#include "serve/ops/operation.hpp"

#include <sys/sysmacros.h>

#include <array>

#include "serve/forget_names.hpp"
#include "serve/ops/change.hpp"

namespace zc::ops {

namespace {

// As struct fuse_attr has it: the kernel's new_encode_dev().
std::uint32_t encoded_device(std::uint32_t major, std::uint32_t minor) noexcept {
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFFU) << 12);
}

}  // namespace

const char* Request::name(std::size_t offset) const noexcept {
    if (offset >= body.size() || body.back() != std::byte{0}) {
        return nullptr;
    }
    return reinterpret_cast<const char*>(body.data()) + offset;
}

bool Request::answer(std::span<const std::byte> payload) const noexcept {
    abi::OutHeader reply{static_cast<std::uint32_t>(sizeof(abi::OutHeader) + payload.size()), 0,
                         header.unique};
    const std::array<iovec, 2> pieces{
        {{&reply, sizeof reply}, {const_cast<std::byte*>(payload.data()), payload.size()}}};
    return channel->reply({pieces.data(), payload.empty() ? 1U : 2U}) >= 0;
}

bool Request::fail(int error) const noexcept {
    // ENOSYS would switch the operation off for the whole connection.
    return channel->reply_error(header.unique, error == -ENOSYS ? -EOPNOTSUPP : error) >= 0;
}

bool Request::failed(int error) const noexcept {
    if (error == kUpcall) {
        return false;
    }
    fail(error);
    return true;
}

abi::Attr attributes_of(const struct ::statx& status) noexcept {
    const auto seconds = [](const statx_timestamp& time) {
        return static_cast<std::uint64_t>(time.tv_sec);
    };
    return {status.stx_ino,
            status.stx_size,
            status.stx_blocks,
            seconds(status.stx_atime),
            seconds(status.stx_mtime),
            seconds(status.stx_ctime),
            status.stx_atime.tv_nsec,
            status.stx_mtime.tv_nsec,
            status.stx_ctime.tv_nsec,
            status.stx_mode,
            status.stx_nlink,
            status.stx_uid,
            status.stx_gid,
            encoded_device(status.stx_rdev_major, status.stx_rdev_minor),
            status.stx_blksize,
            0};
}

abi::EntryOut entry_of(std::uint64_t nodeid, const struct ::statx& status,
                       Validity validity) noexcept {
    return {nodeid,
            0,
            validity.seconds,
            validity.seconds,
            validity.nanoseconds,
            validity.nanoseconds,
            attributes_of(status)};
}

namespace {

bool dispatch(Context& context, const Request& request) {
    using abi::Opcode;
    if (answer_needless(context, request)) {
        return true;
    }
    switch (static_cast<Opcode>(request.header.opcode)) {
        case Opcode::lookup:
            return lookup(context, request);
        case Opcode::forget:
            return forget(context, request);
        case Opcode::batch_forget:
            return batch_forget(context, request);
        case Opcode::getattr:
            return getattr(context, request);
        case Opcode::statx:
            return statx(context, request);
        case Opcode::readlink:
            return readlink(context, request);
        case Opcode::access:
            return access(context, request);
        case Opcode::statfs:
            return statfs(context, request);
        case Opcode::open:
            return open(context, request);
        case Opcode::release:
            return release(context, request);
        case Opcode::flush:
            return flush(context, request);
        case Opcode::opendir:
            return opendir(context, request);
        case Opcode::readdir:
            return readdir(context, request);
        case Opcode::readdirplus:
            return readdirplus(context, request);
        case Opcode::releasedir:
            return releasedir(context, request);
        case Opcode::getxattr:
            return getxattr(context, request);
        case Opcode::listxattr:
            return listxattr(context, request);
        default:
            return change(context, request);
    }
}

}  // namespace

bool serve(Context& context, const Request& request) {
    const auto& leased_nodes = context.leased_nodes();
    if (leased_nodes.none()) {
        return answer_needless(context, request);
    }
    const auto revokes = leased_nodes.revokes();
    const bool answered = dispatch(context, request);
    if (answered && leased_nodes.revokes() != revokes) {
        forget_names(context.state, request.header.nodeid);
    }
    return answered;
}

}  // namespace zc::ops
