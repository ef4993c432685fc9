#include "sys/memory_file.hpp"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "sys/syscalls.hpp"

namespace zc::sys {

namespace {

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

MemoryFile::MemoryFile(const char* name, std::size_t bytes)
    : fd_(::memfd_create(name, MFD_CLOEXEC)) {
    if (!fd_) {
        fail("memfd_create");
    }
    if (::ftruncate(fd_.get(), static_cast<off_t>(bytes)) < 0) {
        fail("giving a file in memory its size");
    }
    map(bytes);
}

MemoryFile::MemoryFile(UniqueFd fd) : fd_(std::move(fd)) {
    struct ::stat status {};
    if (::fstat(fd_.get(), &status) < 0) {
        fail("looking at a file in memory");
    }
    map(static_cast<std::size_t>(status.st_size));
}

void MemoryFile::map(std::size_t bytes) {
    void* at =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd_.get(), 0);
    if (at == MAP_FAILED) {
        fail("mapping a file in memory");
    }
    data_ = static_cast<std::byte*>(at);
    size_ = bytes;
}

MemoryFile::MemoryFile(MemoryFile&& other) noexcept
    : fd_(std::move(other.fd_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MemoryFile& MemoryFile::operator=(MemoryFile&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

MemoryFile::~MemoryFile() {
    if (data_ != nullptr) {
        ::munmap(data_, size_);
    }
}

int MemoryFile::detach() noexcept {
    if (data_ == nullptr) {
        return 0;
    }
    // One call replaces the mapping at its place: another thread sees the same bytes at any moment.
    void* const at = ::mmap(data_, size_, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd_.get(), 0);
    return at == MAP_FAILED ? -errno : 0;
}

void MemoryFile::release(std::size_t offset, std::size_t bytes) const noexcept {
    const auto page = page_bytes();
    const auto first = (offset + page - 1) / page * page;
    const auto end = (offset + bytes) / page * page;
    if (first < end) {
        ::madvise(data_ + first, end - first, MADV_REMOVE);
    }
}

}  // namespace zc::sys
