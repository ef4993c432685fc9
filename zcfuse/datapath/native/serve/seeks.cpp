#include "serve/seeks.hpp"

#include <unistd.h>

#include <array>
#include <cerrno>

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
