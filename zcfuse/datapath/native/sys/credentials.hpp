// As whom the calling thread touches files. Each call concerns that thread alone: the C library's
// setgroups() would change every thread of the process.
#pragma once

#include <sys/types.h>

#include <span>
#include <vector>

namespace zc::sys {

// Separates the thread's umask from the process's. Returns 0 or -errno.
int own_umask() noexcept;
// Whether the thread may act as any user; its supplementary groups are gone then.
bool may_act_as_others() noexcept;
// Takes CAP_SYS_RESOURCE from the thread: with it, quotas and reserved blocks bind nobody.
void heed_limits() noexcept;

void set_fs_user(uid_t uid) noexcept;
void set_fs_group(gid_t gid) noexcept;
int set_groups(std::span<const gid_t> groups) noexcept;
// The supplementary groups of a thread of any process; false where /proc does not say.
bool groups_of(pid_t tid, std::vector<gid_t>& into);

}  // namespace zc::sys
