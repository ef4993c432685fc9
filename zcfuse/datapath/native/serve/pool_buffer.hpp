// One buffer of serving path `pool`: page-aligned anonymous memory that a child does not get.
//
// With `prefault` its pages exist before the first use and are locked where the budget and the
// kernel allow it, so that serving takes no page fault. Without `prefault` it behaves like a malloc
// of its size, for comparison: fresh() gives the pages back, each use faults them in one by one,
// and nothing is locked. Transparent huge pages are off there, since they would merge 512 faults
// into one.
//
// Owned by one thread at a time; the budget is shared and must outlive the buffer.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "serve/lock_budget.hpp"

namespace zc {

class PoolBuffer {
  public:
    // Rounds `bytes` up to whole pages. Throws std::system_error if the kernel gives no memory.
    PoolBuffer(std::size_t bytes, bool prefault, LockBudget& budget);
    PoolBuffer(PoolBuffer&& other) noexcept;
    PoolBuffer& operator=(PoolBuffer&& other) noexcept;
    PoolBuffer(const PoolBuffer&) = delete;
    PoolBuffer& operator=(const PoolBuffer&) = delete;
    ~PoolBuffer();

    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    std::span<std::byte> bytes() const noexcept { return {data_, size_}; }

    bool prefaulted() const noexcept { return prefaulted_; }
    bool locked() const noexcept { return locked_; }
    // Why it is not locked; empty when it is.
    const std::string& unlocked_reason() const noexcept { return reason_; }

    // Call before each use. Does nothing for a prefaulted buffer; gives the others' pages back, so
    // that their content is lost. Returns 0 or -errno.
    int fresh() noexcept;

  private:
    void lock();
    void release() noexcept;

    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    LockBudget* budget_ = nullptr;
    bool prefaulted_ = false;
    bool locked_ = false;
    std::string reason_;
};

}  // namespace zc
