#include "serve/pool_buffer.hpp"

#include <unistd.h>

#include <cstring>
#include <system_error>
#include <utility>

#include "sys/syscalls.hpp"

namespace zc {

namespace {

std::size_t whole_pages(std::size_t bytes) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return (bytes + page - 1) / page * page;
}

}  // namespace

PoolBuffer::PoolBuffer(std::size_t bytes, bool prefault, LockBudget& budget)
    : size_(whole_pages(bytes)), budget_(&budget), prefaulted_(prefault) {
    // MAP_POPULATE rather than MADV_POPULATE_WRITE: it is there on every kernel.
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | (prefault ? MAP_POPULATE : 0);
    int error = 0;
    data_ = static_cast<std::byte*>(
        sys::mmap(size_, PROT_READ | PROT_WRITE, flags, /*fd=*/-1, /*offset=*/0, error));
    if (data_ == nullptr) {
        throw std::system_error(-error, std::generic_category(),
                                "cannot map a buffer of " + std::to_string(size_) +
                                    " bytes (fewer threads or smaller requests need less)");
    }
    // A child would only make every page of it copy-on-write here.
    sys::madvise(data_, size_, MADV_DONTFORK);
    if (prefault) {
        lock();
    } else {
        sys::madvise(data_, size_, MADV_NOHUGEPAGE);
        reason_ = "prefaulting is switched off";
    }
}

PoolBuffer::PoolBuffer(PoolBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      budget_(other.budget_),
      prefaulted_(other.prefaulted_),
      locked_(std::exchange(other.locked_, false)),
      reason_(std::move(other.reason_)) {}

PoolBuffer& PoolBuffer::operator=(PoolBuffer&& other) noexcept {
    if (this != &other) {
        release();
        data_ = std::exchange(other.data_, nullptr);
        size_ = std::exchange(other.size_, 0);
        budget_ = other.budget_;
        prefaulted_ = other.prefaulted_;
        locked_ = std::exchange(other.locked_, false);
        reason_ = std::move(other.reason_);
    }
    return *this;
}

PoolBuffer::~PoolBuffer() {
    release();
}

int PoolBuffer::fresh() noexcept {
    return prefaulted_ ? 0 : sys::madvise(data_, size_, MADV_DONTNEED);
}

void PoolBuffer::lock() {
    if (!budget_->try_take(size_)) {
        reason_ = "over the lock budget of " + std::to_string(budget_->limit()) + " bytes";
        return;
    }
    const int error = sys::mlock(data_, size_);
    if (error == 0) {
        locked_ = true;
        return;
    }
    budget_->give(size_);
    reason_ = std::string("mlock: ") + strerrorname_np(-error);
}

void PoolBuffer::release() noexcept {
    if (data_ == nullptr) {
        return;
    }
    sys::munmap(data_, size_);  // takes the lock with it
    if (locked_) {
        budget_->give(size_);
    }
    data_ = nullptr;
    locked_ = false;
}

}  // namespace zc
