#include "serve/coherence/mounts_below.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace zc {

namespace {

// mountinfo writes blanks and backslashes as three octal digits.
std::string unescaped(std::string_view text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 3 < text.size()) {
            const int code =
                (text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0');
            plain += static_cast<char>(code);
            i += 3;
        } else {
            plain += text[i];
        }
    }
    return plain;
}

// The fifth field of a line.
std::string_view mount_point(std::string_view line) {
    for (int field = 0; field < 4; ++field) {
        const auto blank = line.find(' ');
        if (blank == std::string_view::npos) {
            return {};
        }
        line.remove_prefix(blank + 1);
    }
    return line.substr(0, line.find(' '));
}

}  // namespace

MountsBelow::MountsBelow(std::string mountpoint)
    : prefix_(std::move(mountpoint) + '/'),
      table_(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)) {
    read_again();
}

bool MountsBelow::any() {
    const std::lock_guard guard(lock_);
    refresh();
    return !found_.empty();
}

bool MountsBelow::is_above_one(std::string_view path, std::string_view name) {
    std::string part = "/";
    part.append(path).append(path.empty() ? "" : "/").append(name).append("/");
    const std::lock_guard guard(lock_);
    refresh();
    return std::any_of(found_.begin(), found_.end(), [&](const std::string& mount) {
        return mount.find(part) != std::string::npos;
    });
}

void MountsBelow::refresh() {
    struct ::pollfd changed {
        table_.get(), POLLPRI, 0
    };
    if (::poll(&changed, 1, 0) > 0 && (changed.revents & (POLLPRI | POLLERR)) != 0) {
        read_again();
    }
}

void MountsBelow::read_again() {
    std::string text;
    std::array<char, 16 << 10> piece{};
    ::lseek(table_.get(), 0, SEEK_SET);
    for (ssize_t n = 0; (n = ::read(table_.get(), piece.data(), piece.size())) > 0;) {
        text.append(piece.data(), static_cast<std::size_t>(n));
    }
    found_.clear();
    for (std::size_t at = 0; at < text.size();) {
        const auto end = std::min(text.find('\n', at), text.size());
        const auto point = unescaped(mount_point(std::string_view(text).substr(at, end - at)));
        if (point.starts_with(prefix_)) {
            found_.push_back('/' + point.substr(prefix_.size()) + '/');
        }
        at = end + 1;
    }
}

}  // namespace zc
