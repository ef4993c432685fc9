// The permissions of other processes, by /proc. No state, safe from any thread.
#pragma once

#include <sys/types.h>

namespace zc::sys {

// Whether a process or thread has CAP_SYS_ADMIN for the whole machine, which xattr(7) requires for
// `trusted.` names. False for a process that this one cannot see.
bool may_administer(pid_t pid) noexcept;

}  // namespace zc::sys
