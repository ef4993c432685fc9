// Acting as the client that sent a request: its user, its group, its supplementary groups and its
// umask, so that a new file belongs to its creator and the backing filesystem checks, counts and
// clears what it would for that client.
//
// The thread has an empty list of supplementary groups. The kernel has checked the client's
// permission on the mount (default_permissions); the groups are read from /proc only where the
// backing filesystem refuses without them, or where a set-group-id bit depends on them.
//
// A daemon that may not change its user refuses the changes of all other users with EACCES.
//
// Threads: a ThreadIdentity belongs to a serving thread, and an AsCaller to the scope of one call.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "abi/fuse.hpp"

namespace zc {

// The user and group of a serving thread while it acts for itself.
class ThreadIdentity {
  public:
    // To be called by the thread itself. Only the first call does something.
    void prepare() noexcept;
    bool may_act_as_others() const noexcept { return may_; }
    uid_t uid() const noexcept { return uid_; }
    gid_t gid() const noexcept { return gid_; }
    void use_umask(mode_t mask) noexcept;

  private:
    bool prepared_ = false;
    bool may_ = false;
    bool own_umask_ = false;
    uid_t uid_ = 0;
    gid_t gid_ = 0;
    mode_t umask_ = ~mode_t{0};  // none that was set here
};

class AsCaller {
  public:
    AsCaller(ThreadIdentity& thread, const abi::InHeader& request);
    AsCaller(const AsCaller&) = delete;
    AsCaller& operator=(const AsCaller&) = delete;
    ~AsCaller();

    // Takes the client's supplementary groups; false where that changes nothing.
    bool take_groups();
    // 0, or -EACCES where this process may not act for the client.
    int error() const noexcept { return error_; }

  private:
    ThreadIdentity& thread_;
    const abi::InHeader& request_;
    int error_ = 0;
    bool other_user_ = false;
    bool other_group_ = false;
    bool asked_ = false;
    bool has_groups_ = false;
};

}  // namespace zc
