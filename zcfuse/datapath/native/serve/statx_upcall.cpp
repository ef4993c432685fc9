#include "serve/statx_upcall.hpp"

#include <array>
#include <cerrno>
#include <cstring>

namespace zc {

namespace {

abi::StatxOut statx_of(const abi::AttrOut& attributes) noexcept {
    constexpr std::uint32_t kBasic = 0x7FF;  // STATX_BASIC_STATS
    const auto& from = attributes.attr;
    const auto time = [](std::uint64_t seconds, std::uint32_t nanoseconds) {
        return abi::StatxTime{static_cast<std::int64_t>(seconds), nanoseconds, 0};
    };
    abi::StatxOut out{};
    out.attr_valid = attributes.attr_valid;
    out.attr_valid_nsec = attributes.attr_valid_nsec;
    auto& stat = out.stat;
    stat.mask = kBasic;
    stat.blksize = from.blksize;
    stat.nlink = from.nlink;
    stat.uid = from.uid;
    stat.gid = from.gid;
    stat.mode = static_cast<std::uint16_t>(from.mode);
    stat.ino = from.ino;
    stat.size = from.size;
    stat.blocks = from.blocks;
    stat.atime = time(from.atime, from.atimensec);
    stat.ctime = time(from.ctime, from.ctimensec);
    stat.mtime = time(from.mtime, from.mtimensec);
    stat.rdev_major = from.rdev >> 8 & 0xFFF;
    stat.rdev_minor = (from.rdev & 0xFF) | (from.rdev >> 12 & 0xFFF00);
    return out;
}

}  // namespace

std::span<const std::byte> statx_upcall(abi::InHeader header, std::span<const std::byte> body,
                                        MadeRequest& into) noexcept {
    abi::StatxIn asked{};
    if (body.size() < sizeof asked) {
        return {};
    }
    std::memcpy(&asked, body.data(), sizeof asked);
    const abi::GetattrIn getattr{asked.getattr_flags, 0, asked.fh};
    header.opcode = static_cast<std::uint32_t>(abi::Opcode::getattr);
    header.len = sizeof header + sizeof getattr;
    header.total_extlen = 0;
    std::memcpy(into.data(), &header, sizeof header);
    std::memcpy(into.data() + sizeof header, &getattr, sizeof getattr);
    return std::span<const std::byte>(into).first(header.len);
}

bool answer_statx(const Channel& channel, std::uint64_t unique, std::span<std::byte> reply,
                  bool any_leased) noexcept {
    struct {
        abi::OutHeader header;
        abi::AttrOut body;
    } got{};
    if (reply.size() != sizeof got) {
        std::memcpy(&got.header, reply.data(), sizeof got.header);
        if (got.header.error == -ENOSYS && any_leased) {
            got.header.error = -EOPNOTSUPP;
            std::memcpy(reply.data(), &got.header, sizeof got.header);
        }
        return false;
    }
    std::memcpy(&got, reply.data(), sizeof got);
    abi::StatxOut out = statx_of(got.body);
    abi::OutHeader header{sizeof header + sizeof out, 0, unique};
    const std::array<iovec, 2> pieces{{{&header, sizeof header}, {&out, sizeof out}}};
    channel.reply(pieces);
    return true;
}

}  // namespace zc
