// What other processes are permitted, by /proc. No state, safe from any thread.
#pragma once

#include <sys/types.h>

namespace zc::sys {

// Whether a process or thread has CAP_SYS_ADMIN for the whole machine, as xattr(7) asks for
// `trusted.` names. False for a process that this one cannot see.
bool may_administer(pid_t pid) noexcept;

}  // namespace zc::sys
