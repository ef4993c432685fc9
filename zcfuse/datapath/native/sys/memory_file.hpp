// A file without a name that lies in memory, mapped whole. Another process that gets its descriptor
// maps the same bytes, also once the process that made it is gone.
//
// The file is sparse: a page takes memory from its first store until release(). Not thread-safe;
// the mapping may be used by any thread.
#pragma once

#include <cstddef>

#include "sys/unique_fd.hpp"

namespace zc::sys {

class MemoryFile {
  public:
    MemoryFile() noexcept = default;
    // Makes a file of zeros. Throws std::system_error; ENOMEM or EFBIG where a limit of the process
    // allows no mapping or file of that size.
    MemoryFile(const char* name, std::size_t bytes);
    // Maps all of an existing one. Throws std::system_error.
    explicit MemoryFile(UniqueFd fd);
    MemoryFile(MemoryFile&& other) noexcept;
    MemoryFile& operator=(MemoryFile&& other) noexcept;
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;
    ~MemoryFile();

    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    int fd() const noexcept { return fd_.get(); }
    // Later stores of this process stay in it: others keep the bytes of now. Returns 0 or -errno.
    int detach() noexcept;
    // Gives the whole pages of a range back to the system; they read as zeros from now on.
    void release(std::size_t offset, std::size_t bytes) const noexcept;

  private:
    void map(std::size_t bytes);

    UniqueFd fd_;
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace zc::sys
