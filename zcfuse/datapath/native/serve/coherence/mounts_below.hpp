// Other mounts on directories of our mount, in this mount namespace.
//
// Threads: any. The list is read again when the kernel says that a mount has changed (POLLPRI of
// /proc/self/mountinfo: proc_pid_mountinfo(5)).
#pragma once

#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "sys/unique_fd.hpp"

namespace zc {

class MountsBelow {
  public:
    explicit MountsBelow(std::string mountpoint);

    bool any();
    // Whether a mount lies on the name in the directory at `path` (from the root of a source), or
    // below it. This class does not know where a source begins, so it compares the ends of paths.
    bool is_above_one(std::string_view path, std::string_view name);

  private:
    void refresh();
    void read_again();

    const std::string prefix_;  // the mount point and a slash
    std::mutex lock_;           // innermost
    sys::UniqueFd table_;
    std::vector<std::string> found_;  // below the mount point, each with a slash at both ends
};

}  // namespace zc
