// LSEEK, which finds data and holes of a file.
//
// Control knows no LSEEK. A file opened without a message may lack a lease. Then the data path asks
// control for one byte instead, so that control opens and leases the file; the seek waits here for
// the reply. Thread-safe; the lock is innermost. A seek stays if its upcall is given up, because it
// is small.
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
