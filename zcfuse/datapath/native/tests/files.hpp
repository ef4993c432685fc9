// Backing files and pipes for the tests.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "sys/syscalls.hpp"

namespace zc::test {

inline int checked(int result, const char* what) {
    if (result < 0) {
        throw std::system_error(errno, std::generic_category(), what);
    }
    return result;
}

// A nameless file in the current directory (a build directory, so not on tmpfs) whose written bytes
// at offset i are pattern(i).
class File {
  public:
    explicit File(std::uint64_t written = 0, std::uint64_t size = 0) {
        std::string path = "zcfuse-XXXXXX";
        fd_.reset(checked(::mkostemp(path.data(), O_CLOEXEC), "mkostemp"));
        ::unlink(path.c_str());
        write(0, written);
        if (size > written) {
            resize(size);
        }
    }

    static std::uint8_t pattern(std::uint64_t offset) {
        return static_cast<std::uint8_t>((offset * 0x9E3779B97F4A7C15U) >> 56);
    }

    void write(std::uint64_t offset, std::uint64_t size) const {
        std::vector<std::uint8_t> bytes(size);
        for (std::uint64_t i = 0; i < size; ++i) {
            bytes[i] = pattern(offset + i);
        }
        const auto n = ::pwrite(fd(), bytes.data(), size, static_cast<off_t>(offset));
        CHECK_EQ(n, static_cast<ssize_t>(size));
    }

    void resize(std::uint64_t size) const {
        checked(::ftruncate(fd(), static_cast<off_t>(size)), "ftruncate");
    }

    int fd() const { return fd_.get(); }

  private:
    sys::UniqueFd fd_;
};

class Pipe {
  public:
    explicit Pipe(std::size_t bytes = std::size_t{1} << 20) {
        CHECK_EQ(sys::pipe_pair(read_, write_), 0);
        CHECK(sys::set_pipe_size(write_.get(), bytes) >= 0);
    }
    int read_end() const { return read_.get(); }
    int write_end() const { return write_.get(); }

    std::vector<std::uint8_t> drain(std::size_t most) const {
        std::vector<std::uint8_t> bytes(most);
        std::size_t have = 0;
        while (have < most) {
            const auto n = sys::read(read_end(), bytes.data() + have, most - have);
            if (n <= 0) {
                break;
            }
            have += static_cast<std::size_t>(n);
        }
        bytes.resize(have);
        return bytes;
    }

  private:
    sys::UniqueFd read_;
    sys::UniqueFd write_;
};

inline std::vector<std::uint8_t> patterned(std::uint64_t offset, std::size_t size) {
    std::vector<std::uint8_t> bytes(size);
    for (std::size_t i = 0; i < size; ++i) {
        bytes[i] = File::pattern(offset + i);
    }
    return bytes;
}

// Polls for conditions without a descriptor: true as soon as the condition holds.
inline bool within(std::chrono::milliseconds limit, const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end) {
            return false;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

inline std::int64_t faults_of_this_thread() {
    rusage usage{};
    ::getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_minflt + usage.ru_majflt;
}

}  // namespace zc::test
