#include "sys/processes.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "sys/unique_fd.hpp"

namespace zc::sys {

namespace {

using Text = std::array<char, 4096>;

// The start of a file of a process; empty if unreadable.
std::string_view read_start(pid_t pid, const char* name, Text& into) noexcept {
    std::array<char, 64> path{};
    std::snprintf(path.data(), path.size(), "/proc/%d/%s", pid, name);
    const UniqueFd file(::open(path.data(), O_RDONLY | O_CLOEXEC));
    const auto size = file.get() < 0 ? -1 : ::read(file.get(), into.data(), into.size());
    return {into.data(), size < 0 ? 0 : static_cast<std::size_t>(size)};
}

bool has_sys_admin(pid_t pid) noexcept {
    constexpr std::string_view kField = "\nCapEff:\t";
    Text text;
    const auto status = read_start(pid, "status", text);
    const auto at = status.find(kField);
    if (at == std::string_view::npos) {
        return false;
    }
    std::uint64_t effective = 0;
    const char* digits = status.data() + at + kField.size();
    std::from_chars(digits, status.data() + status.size(), effective, 16);
    return (effective >> CAP_SYS_ADMIN & 1) != 0;
}

// The first user namespace maps the whole range of ids onto itself (user_namespaces(7)).
bool in_first_user_namespace(pid_t pid) noexcept {
    Text text;
    const auto map = read_start(pid, "uid_map", text);
    unsigned inside = 1;
    unsigned outside = 1;
    unsigned count = 0;
    return map.size() < text.size() &&
           std::sscanf(std::string(map).c_str(), "%u %u %u", &inside, &outside, &count) == 3 &&
           inside == 0 && outside == 0 && count == ~0U;
}

}  // namespace

bool may_administer(pid_t pid) noexcept {
    return pid > 0 && has_sys_admin(pid) && in_first_user_namespace(pid);
}

}  // namespace zc::sys
