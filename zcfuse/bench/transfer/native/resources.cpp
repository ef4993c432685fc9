#include "resources.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <system_error>
#include <utility>

namespace zc::transfer {

void refuse(int error, const std::string& call) {
    throw std::system_error(error, std::generic_category(), call);
}

sys::UniqueFd open_file(const std::string& path, int extra_flags) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | extra_flags);
    if (fd < 0) {
        refuse(errno, (extra_flags & O_DIRECT) != 0 ? "open with O_DIRECT" : "open");
    }
    return sys::UniqueFd(fd);
}

Pages::Pages(std::size_t size, int flags, int fd) : size_(size) {
    const int protection = fd < 0 ? PROT_READ | PROT_WRITE : PROT_READ;
    void* const data = ::mmap(nullptr, size, protection, flags, fd, 0);
    if (data == MAP_FAILED) {
        refuse(errno, "mmap");
    }
    data_ = static_cast<std::byte*>(data);
}

Pages Pages::of_file(int fd, std::size_t size) {
    return {size, MAP_SHARED, fd};
}

Pages Pages::anonymous(std::size_t size) {
    return {size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1};
}

Pages Pages::untouched(std::size_t size) {
    Pages pages(size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    // One fault per page, as on a machine without free huge pages.
    ::madvise(pages.data_, size, MADV_NOHUGEPAGE);
    return pages;
}

Pages::Pages(Pages&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Pages::~Pages() {
    if (data_ != nullptr) {
        ::munmap(data_, size_);
    }
}

void Pages::lock() {
    granted("mlock", [this] { return ::mlock(data_, size_); });
}

void Pages::populate(std::span<std::byte> part, int advice) {
    granted("madvise with MADV_POPULATE",
            [&] { return ::madvise(part.data(), part.size(), advice); });
}

Pipe::Pipe(std::size_t bytes) {
    std::array<int, 2> ends{};
    granted("pipe", [&] { return ::pipe2(ends.data(), O_CLOEXEC); });
    read_end_.reset(ends[0]);
    write_end_.reset(ends[1]);
    // Beyond fs.pipe-max-size, or the user's share, the kernel refuses and the pipe keeps its size.
    ::fcntl(ends[1], F_SETPIPE_SZ, static_cast<int>(bytes));
    bytes_ = granted("fcntl with F_GETPIPE_SZ", [&] { return ::fcntl(ends[1], F_GETPIPE_SZ); });
}

}  // namespace zc::transfer
