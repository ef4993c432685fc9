#include "sys/copying.hpp"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <limits>
#include <span>

#include "sys/changes.hpp"
#include "sys/syscalls.hpp"

namespace zc::sys {

namespace {

constexpr std::size_t kPieceBytes = 64 << 10;  // of the stack
constexpr std::uint64_t kMostAtOnce = 1 << 30;
constexpr auto kLargest = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());

// The kernel cannot copy between these files: another filesystem, or one without the call.
bool needs_bytes(ssize_t error) noexcept {
    return error == -EXDEV || error == -EINVAL || error == -EOPNOTSUPP || error == -ENOSYS;
}

ssize_t copy_piece(int from, std::uint64_t offset, std::size_t size, int to,
                   std::uint64_t to_offset) noexcept {
    std::array<std::byte, kPieceBytes> buffer;
    const iovec piece{buffer.data(), std::min(size, buffer.size())};
    const auto n = preadv(from, {&piece, 1}, offset);
    const auto bytes = std::span(buffer).first(n > 0 ? static_cast<std::size_t>(n) : 0);
    std::size_t written = 0;
    while (written < bytes.size()) {
        const auto more = pwrite(to, bytes.subspan(written), to_offset + written);
        if (more < 0) {
            return more;
        }
        written += static_cast<std::size_t>(more);
    }
    return n;
}

// One run without holes.
int copy_run(int from, std::uint64_t offset, std::uint64_t length, int to,
             std::uint64_t to_offset) noexcept {
    bool in_kernel = true;
    while (length > 0) {
        const auto size = static_cast<std::size_t>(std::min(length, kMostAtOnce));
        auto n = in_kernel ? copy_range(from, offset, to, to_offset, size)
                           : copy_piece(from, offset, size, to, to_offset);
        // Some filesystems answer 0 for what they cannot copy (/proc, for instance).
        if (in_kernel && (needs_bytes(n) || n == 0)) {
            in_kernel = false;
            continue;
        }
        if (n <= 0) {
            return static_cast<int>(n);
        }
        const auto moved = static_cast<std::uint64_t>(n);
        offset += moved;
        to_offset += moved;
        length -= moved;
    }
    return 0;
}

}  // namespace

int copy_bytes(int from, std::uint64_t offset, std::uint64_t length, int to,
               std::uint64_t to_offset) noexcept {
    const auto end = offset + std::min(length, kLargest - offset);
    auto at = offset;
    while (at < end) {
        const auto data = ::lseek(from, static_cast<off_t>(at), SEEK_DATA);
        if (data < 0 && errno == ENXIO) {
            return 0;  // only a hole is left
        }
        // Without SEEK_DATA all of it is data.
        const auto begin = data < 0 ? at : static_cast<std::uint64_t>(data);
        const auto hole = data < 0 ? -1 : ::lseek(from, data, SEEK_HOLE);
        const auto stop = hole < 0 ? end : std::min(static_cast<std::uint64_t>(hole), end);
        if (begin >= end) {
            return 0;
        }
        if (const int error = copy_run(from, begin, stop - begin, to, to_offset + begin - offset);
            error != 0) {
            return error;
        }
        at = stop;
    }
    return 0;
}

}  // namespace zc::sys
