// Makes the FileLease of a file, for OPEN and CREATE.
#pragma once

#include <memory>

#include "serve/ops/operation.hpp"

namespace zc::ops {

// 0, or -EMFILE if the client's user has too many files open. `keeps_more`: whether the open costs
// a descriptor beside the lease's, so that the reserve is looked at first.
int refuse_open(Context& context, const Request& request, std::uint64_t nodeid, bool keeps_more);

// A file that was opened for a node, registered for passthrough where that is possible, and not yet
// in the table of open files.
class NewLease {
  public:
    NewLease() = default;
    // Registers the file with the credentials that the calling thread has now.
    NewLease(Context& context, Opened opened);

    // The file itself, where the lease is one whole file.
    const std::shared_ptr<const sys::UniqueFd>& file() const noexcept {
        return opened_.extents.front().file;
    }
    // Counts an open of the node, by this lease unless there is another, which it returns.
    OpenFiles::Lease install(Context& context, std::uint64_t nodeid, OpenFiles::Keep keep,
                             std::uint32_t uid);

  private:
    Opened opened_;
    std::shared_ptr<const BackingId> backing_;
    Cause cause_;  // why there is no passthrough
    bool better_later_ = false;
};

}  // namespace zc::ops
