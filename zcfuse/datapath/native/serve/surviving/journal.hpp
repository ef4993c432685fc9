// Control's records, in memory that may survive the process: bytes that only control understands.
//
// A record is there whole or not at all: `used` grows behind its bytes. replace() writes the new
// set beside the old one, and one store makes it the valid one. Thread-safe; the lock is innermost.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sys/memory_file.hpp"

namespace zc {

class Journal {
  public:
    static constexpr std::uint32_t kLayout = 1;
    static constexpr std::size_t kLargestRecord = 1 << 20;

    // Throws std::system_error.
    Journal();
    // Takes what an earlier process left. Throws std::system_error, DamagedState.
    explicit Journal(sys::UniqueFd fd);
    Journal(const Journal&) = delete;
    Journal& operator=(const Journal&) = delete;

    int fd() const noexcept { return file_.fd(); }
    int detach() noexcept { return file_.detach(); }
    // Each throws std::system_error: EMSGSIZE for a larger record, ENOSPC where there is no room.
    void append(std::string_view record);
    void replace(std::span<const std::string> records);
    std::vector<std::string> records() const;

  private:
    struct Header;
    Header& header() const noexcept;
    std::byte* half(std::uint32_t number) const noexcept;
    // Returns the bytes in use behind the record.
    std::uint64_t write(std::uint32_t half, std::uint64_t used, std::string_view record) const;
    // Calls `visit` with each record of the valid set. Throws DamagedState.
    template <typename Visit>
    void each(Visit visit) const;

    mutable std::mutex lock_;
    sys::MemoryFile file_;
};

}  // namespace zc
