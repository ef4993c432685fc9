#include "sys/holes.hpp"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <cerrno>
#include <cstdint>

namespace zc::sys {

namespace {

constexpr std::uint64_t kStatBlock = 512;  // the unit of st_blocks (stat(2))

}  // namespace

int mapping_fills_holes(int fd) noexcept {
    struct statfs filesystem {};
    struct stat file {};
    if (::fstatfs(fd, &filesystem) < 0 || ::fstat(fd, &file) < 0) {
        return -errno;
    }
    const auto held = static_cast<std::uint64_t>(file.st_blocks) * kStatBlock;
    const bool holes = held < static_cast<std::uint64_t>(file.st_size);
    return filesystem.f_type == TMPFS_MAGIC && holes ? 1 : 0;
}

}  // namespace zc::sys
