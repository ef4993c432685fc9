#include "sys/credentials.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <string>
#include <string_view>

#include "sys/unique_fd.hpp"

namespace zc::sys {

namespace {

constexpr uid_t kAnother = 65533;                  // any that is not ours
constexpr uid_t kNobody = static_cast<uid_t>(-1);  // changes nothing; the answer is the present one
constexpr std::size_t kStatusBytes = 64 << 10;
constexpr std::string_view kGroupsLine = "\nGroups:";

// Reads the numbers of one line.
void parse_groups(std::string_view text, std::vector<gid_t>& into) {
    const char* at = text.data();
    const char* const end = at + text.size();
    while (at < end && *at != '\n') {
        gid_t group = 0;
        const auto [next, error] = std::from_chars(at, end, group);
        if (error == std::errc{}) {
            into.push_back(group);
        }
        at = error == std::errc{} ? next : at + 1;
    }
}

}  // namespace

int own_umask() noexcept {
    return ::unshare(CLONE_FS) < 0 ? -errno : 0;
}

bool may_act_as_others() noexcept {
    if (::syscall(SYS_setgroups, 0, nullptr) < 0) {
        return false;
    }
    const auto user = static_cast<uid_t>(::setfsuid(kAnother));
    const bool may = static_cast<uid_t>(::setfsuid(kNobody)) == kAnother;
    ::setfsuid(user);
    return may;
}

void heed_limits() noexcept {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
    if (::syscall(SYS_capget, &header, sets.data()) == 0) {
        sets[CAP_TO_INDEX(CAP_SYS_RESOURCE)].effective &= ~CAP_TO_MASK(CAP_SYS_RESOURCE);
        ::syscall(SYS_capset, &header, sets.data());
    }
}

void set_fs_user(uid_t uid) noexcept {
    ::setfsuid(uid);
}

void set_fs_group(gid_t gid) noexcept {
    ::setfsgid(gid);
}

int set_groups(std::span<const gid_t> groups) noexcept {
    return ::syscall(SYS_setgroups, groups.size(), groups.data()) < 0 ? -errno : 0;
}

bool groups_of(pid_t tid, std::vector<gid_t>& into) {
    into.clear();
    std::array<char, 32> path{};
    std::snprintf(path.data(), path.size(), "/proc/%d/status", tid);
    const UniqueFd file(::open(path.data(), O_RDONLY | O_CLOEXEC));
    if (!file) {
        return false;
    }
    std::string text(kStatusBytes, '\0');
    const auto size = ::read(file.get(), text.data(), text.size());
    const auto status =
        std::string_view(text).substr(0, size > 0 ? static_cast<std::size_t>(size) : 0);
    const auto at = status.find(kGroupsLine);
    if (at == std::string_view::npos) {
        return false;
    }
    parse_groups(status.substr(at + kGroupsLine.size()), into);
    return true;
}

}  // namespace zc::sys
