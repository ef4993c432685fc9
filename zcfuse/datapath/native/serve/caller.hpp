// Acts as the client that sent a request: with its user, groups and umask. So a new file belongs to
// its creator, and the backing filesystem applies the client's permissions and quotas, and clears
// set-id bits as for that client.
//
// The thread has no supplementary groups. The kernel has checked the client's permission on the
// mount (default_permissions). So the thread reads the client's groups from /proc only if the
// backing filesystem refuses without them, or if a set-group-id bit depends on them.
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
    // The thread itself calls this. Only the first call has an effect.
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

    // Takes the client's supplementary groups; false if that changes nothing.
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
