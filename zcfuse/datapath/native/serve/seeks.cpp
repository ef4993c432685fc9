#include "serve/seeks.hpp"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace zc {

// The backing descriptor's own position moves; nothing reads by it.
std::int64_t sought(const FileLease& lease, const abi::LseekIn& request) noexcept {
    const auto* whole = lease.whole_file();
    if (whole == nullptr) {
        return -EINVAL;
    }
    const auto offset =
        ::lseek(whole->get(), static_cast<off_t>(request.offset), static_cast<int>(request.whence));
    return offset < 0 ? -errno : offset;
}

std::span<const std::byte> WaitingSeeks::upcall(abi::InHeader header, const abi::LseekIn& request,
                                                MadeRequest& into) {
    {
        const std::lock_guard guard(lock_);
        waiting_[header.unique] = request;
    }
    abi::ReadIn read{};
    read.size = 1;
    header.opcode = static_cast<std::uint32_t>(abi::Opcode::read);
    header.len = static_cast<std::uint32_t>(into.size());
    header.total_extlen = 0;
    std::memcpy(into.data(), &header, sizeof header);
    std::memcpy(into.data() + sizeof header, &read, sizeof read);
    return into;
}

bool WaitingSeeks::answer(const Upcall& upcall, std::uint64_t unique,
                          std::span<const std::byte> reply, const LeaseTable& leases) {
    std::unordered_map<std::uint64_t, abi::LseekIn>::node_type asked;
    {
        const std::lock_guard guard(lock_);
        asked = waiting_.extract(unique);
    }
    if (asked.empty()) {
        return false;
    }
    abi::OutHeader header{};
    std::memcpy(&header, reply.data(), sizeof header);
    std::int64_t found = header.error;
    if (found == 0) {
        const auto lease = leases.find(upcall.nodeid);
        found = lease ? sought(*lease, asked.mapped()) : -EINVAL;
    }
    answer_seek(*upcall.channel, unique, found);
    return true;
}

void answer_seek(const Channel& channel, std::uint64_t unique, std::int64_t found) noexcept {
    if (found < 0) {
        channel.reply_error(unique, static_cast<int>(found));
        return;
    }
    abi::OutHeader reply{sizeof reply + sizeof found, 0, unique};
    const std::array<iovec, 2> pieces{{{&reply, sizeof reply}, {&found, sizeof found}}};
    channel.reply(pieces);
}

}  // namespace zc
