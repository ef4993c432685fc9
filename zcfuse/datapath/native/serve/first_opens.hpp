// Orders the OPENs of a file while the first of them sends the file's bytes to the kernel
// (ops/send_ahead.hpp). Each OPEN of a file holds its lock before it is answered. No system call of
// the holder waits for a disk or for another request.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace zc {

class FirstOpens {
  public:
    // Files may share a lock.
    std::mutex& of(std::uint64_t nodeid) noexcept { return locks_[nodeid % kLocks]; }

  private:
    static constexpr std::size_t kLocks = 64;

    std::array<std::mutex, kLocks> locks_;
};

}  // namespace zc
