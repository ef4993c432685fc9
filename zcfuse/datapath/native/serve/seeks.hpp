// LSEEK, for where the data and the holes of a file are.
//
// Control knows no LSEEK. Of a file that was opened without a message and has no lease, control is
// asked for a byte instead, which makes it open the file and lease it; the seek waits here for that
// reply. Thread-safe; the lock is innermost. A seek whose upcall was given up stays: it is small.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <unordered_map>

#include "abi/fuse.hpp"
#include "serve/lease.hpp"
#include "serve/statx_upcall.hpp"
#include "transport/channel.hpp"
#include "transport/upcalls.hpp"

namespace zc {

// The offset, or -errno; -EINVAL for a lease that is not one whole file.
std::int64_t sought(const FileLease& lease, const abi::LseekIn& request) noexcept;
void answer_seek(const Channel& channel, std::uint64_t unique, std::int64_t found) noexcept;

class WaitingSeeks {
  public:
    // Notes the seek, and makes the READ of one byte that stands for it in `into`.
    std::span<const std::byte> upcall(abi::InHeader header, const abi::LseekIn& request,
                                      MadeRequest& into);
    // Answers the seek by the READ's reply: the file has a lease by then. False where none waits.
    bool answer(const Upcall& upcall, std::uint64_t unique, std::span<const std::byte> reply,
                const LeaseTable& leases);

  private:
    std::mutex lock_;
    std::unordered_map<std::uint64_t, abi::LseekIn> waiting_;
};

}  // namespace zc
