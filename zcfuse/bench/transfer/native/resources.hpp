// Resources of the methods: descriptors, pages, mappings and pipes, each with one owner.
// Constructors throw std::system_error with the refused call.
#pragma once

#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "sys/unique_fd.hpp"

namespace zc::transfer {

[[noreturn]] void refuse(int error, const std::string& call);

// Repeats a system call on EINTR. Throws its errno with the call's name.
template <typename Call>
auto granted(const char* name, Call call) {
    auto result = call();
    while (result < 0 && errno == EINTR) {
        result = call();
    }
    if (result < 0) {
        refuse(errno, name);
    }
    return static_cast<std::size_t>(result);
}

sys::UniqueFd open_file(const std::string& path, int extra_flags = 0);

// A run of pages: shared and read-only of a file, or anonymous and populated.
class Pages {
  public:
    static Pages of_file(int fd, std::size_t size);
    static Pages anonymous(std::size_t size);
    static Pages untouched(std::size_t size);  // anonymous, each page to be faulted in
    Pages(Pages&& other) noexcept;
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;
    ~Pages();

    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    std::span<std::byte> part(std::uint64_t offset, std::size_t size) const noexcept {
        return {data_ + offset, size};
    }
    void lock();
    // madvise(2) with MADV_POPULATE_READ or MADV_POPULATE_WRITE (Linux 5.14).
    void populate(std::span<std::byte> part, int advice);

  private:
    Pages(std::size_t size, int flags, int fd);

    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

// Asks for room for `bytes` and accepts less.
class Pipe {
  public:
    explicit Pipe(std::size_t bytes);

    int read_end() const noexcept { return read_end_.get(); }
    int write_end() const noexcept { return write_end_.get(); }
    std::size_t bytes() const noexcept { return bytes_; }

  private:
    sys::UniqueFd read_end_;
    sys::UniqueFd write_end_;
    std::size_t bytes_ = 0;
};

}  // namespace zc::transfer
