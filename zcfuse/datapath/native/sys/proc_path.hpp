// The /proc path that names a descriptor's file again, for any kind of descriptor.
#pragma once

#include <array>
#include <cstdio>

namespace zc::sys {

struct ProcPath {
    std::array<char, 32> text{};
    explicit ProcPath(int fd) noexcept {
        std::snprintf(text.data(), text.size(), "/proc/self/fd/%d", fd);
    }
    const char* get() const noexcept { return text.data(); }
};

}  // namespace zc::sys
