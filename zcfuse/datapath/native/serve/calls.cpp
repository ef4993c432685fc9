#include "serve/calls.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "abi/fuse_nodes.hpp"
#include "serve/user_queue.hpp"

namespace zc {

Patience patience_for(const abi::InHeader& header, std::span<const std::byte> body) noexcept {
    using abi::Opcode;
    switch (static_cast<Opcode>(header.opcode)) {
        case Opcode::read:
        case Opcode::forget:
        case Opcode::batch_forget:
        case Opcode::release:
        case Opcode::releasedir:
        case Opcode::flush:
        case Opcode::interrupt:
        case Opcode::init:
        case Opcode::destroy:
        case Opcode::poll:
        case Opcode::notify_reply:
            return Patience::none;
        case Opcode::fsync:
        case Opcode::fsyncdir:
        case Opcode::syncfs:
        case Opcode::fallocate:
        case Opcode::copy_file_range:
        case Opcode::copy_file_range_64:
            return Patience::long_;
        case Opcode::create:
        case Opcode::tmpfile:
        case Opcode::mknod:
        case Opcode::mkdir:
        case Opcode::symlink:
        case Opcode::link:
        case Opcode::unlink:
        case Opcode::rmdir:
        case Opcode::rename:
        case Opcode::rename2:
        case Opcode::setattr:
        case Opcode::setxattr:
        case Opcode::removexattr:
        case Opcode::write:
            return Patience::changes;
        case Opcode::open: {
            abi::OpenIn open{};
            if (body.size() >= sizeof open) {
                std::memcpy(&open, body.data(), sizeof open);
            }
            return (open.flags & O_TRUNC) != 0 ? Patience::changes : Patience::names;
        }
        case Opcode::lookup:
        case Opcode::getattr:
        case Opcode::statx:
        case Opcode::access:
        case Opcode::opendir:
        case Opcode::statfs:
            return Patience::names;
        default:
            return Patience::looks;
    }
}

CallJob call_job(std::shared_ptr<const Channel> channel, const abi::InHeader& header,
                 std::span<const std::byte> body, Clock::time_point since) {
    CallJob job{std::move(channel), header, {}, since, header.uid};
    job.message.resize(sizeof header + body.size());
    std::memcpy(job.message.data(), &header, sizeof header);
    std::copy(body.begin(), body.end(), job.message.data() + sizeof header);
    return job;
}

}  // namespace zc
