// Read leases on files (fcntl(2), F_SETLEASE). Someone else's file needs CAP_LEASE.
#pragma once

#include <fcntl.h>
#include <sys/types.h>

#include <cerrno>

namespace zc::sys {

// Leases a file that is open for reading only: SIGIO in the thread `tid` of this process says that
// the lease is broken. 0 or -errno; EAGAIN if somebody has the file open for writing.
inline int take_read_lease(int fd, pid_t tid) noexcept {
    const struct ::f_owner_ex owner { F_OWNER_TID, tid };
    const bool taken =
        ::fcntl(fd, F_SETOWN_EX, &owner) == 0 && ::fcntl(fd, F_SETLEASE, F_RDLCK) == 0;
    return taken ? 0 : -errno;
}

// False once the lease is broken.
inline bool has_read_lease(int fd) noexcept {
    return ::fcntl(fd, F_GETLEASE) == F_RDLCK;
}

inline void give_back_lease(int fd) noexcept {
    ::fcntl(fd, F_SETLEASE, F_UNLCK);
}

}  // namespace zc::sys
