// Descriptors that a forked child must not have.
//
// A connection to the kernel lives until its last descriptor is closed. A child that never calls
// exec, such as a DataLoader's worker, inherits them all: if its parent is killed, clients would
// wait for the child. So a handler of fork(2) replaces the guarded descriptors by /dev/null in each
// child. Their numbers stay taken, because objects of the child may still close them.
#pragma once

#include <cstddef>

namespace zc::sys {

class ForkGuard {
  public:
    // Guards `fd` while this lives. Where 4,096 are guarded already, it does nothing.
    explicit ForkGuard(int fd) noexcept;
    ForkGuard(const ForkGuard&) = delete;
    ForkGuard& operator=(const ForkGuard&) = delete;
    ~ForkGuard();

  private:
    std::size_t place_;
};

}  // namespace zc::sys
