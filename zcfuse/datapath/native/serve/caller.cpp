#include "serve/caller.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "sys/credentials.hpp"

namespace zc {

void ThreadIdentity::prepare() noexcept {
    if (prepared_) {
        return;
    }
    prepared_ = true;
    uid_ = ::geteuid();
    gid_ = ::getegid();
    own_umask_ = sys::own_umask() == 0;
    may_ = sys::may_act_as_others();
    sys::heed_limits();
}

void ThreadIdentity::use_umask(mode_t mask) noexcept {
    prepare();
    if (own_umask_ && mask != umask_) {
        ::umask(mask);
        umask_ = mask;
    }
}

AsCaller::AsCaller(ThreadIdentity& thread, const abi::InHeader& request)
    : thread_(thread), request_(request) {
    thread_.prepare();
    if (!thread_.may_act_as_others()) {
        error_ = request.uid == thread_.uid() ? 0 : -EACCES;
        return;
    }
    // The group first: it takes a privilege that the user may not have.
    other_group_ = request.gid != thread_.gid();
    if (other_group_) {
        sys::set_fs_group(request.gid);
    }
    other_user_ = request.uid != thread_.uid();
    if (other_user_) {
        sys::set_fs_user(request.uid);
    }
}

bool AsCaller::take_groups() {
    if (asked_ || !other_user_) {
        return false;
    }
    asked_ = true;
    std::vector<gid_t> groups;
    has_groups_ = sys::groups_of(static_cast<pid_t>(request_.pid), groups) && !groups.empty() &&
                  sys::set_groups(groups) == 0;
    return has_groups_;
}

AsCaller::~AsCaller() {
    if (other_user_) {
        sys::set_fs_user(thread_.uid());
    }
    if (other_group_) {
        sys::set_fs_group(thread_.gid());
    }
    if (has_groups_) {
        sys::set_groups({});
    }
}

}  // namespace zc
