// Makes the FileLease of a file, for OPEN and CREATE.
#pragma once

#include <memory>

#include "serve/ops/operation.hpp"

namespace zc::ops {

// The size that clients see. `version` is what the open saw: of a described file a version in its
// place, and then this is a system call.
std::uint64_t size_of(const FileLease& lease, const struct ::statx& version);

// Takes a read lease on the open file of a node whose source is `strict`; a refusal is counted.
void lease_for_strict(Context& context, std::uint64_t nodeid, const FileLease& lease);

// 0, or -EMFILE if the client's user has too many files open. `keeps_more`: whether the open costs
// a descriptor beside the lease's, so that the reserve is looked at first.
int refuse_open(Context& context, const Request& request, std::uint64_t nodeid, bool keeps_more);

// Opens the file of a request's node again, if an earlier process had it open. 0, also where there
// is nothing to do, or -errno.
int reopen_inherited(Context& context, std::uint64_t nodeid);

// The handle that an OPEN or CREATE is answered with, counted for a successor; 0: too many.
std::uint64_t new_handle(Context& context, const Request& request, std::uint64_t nodeid,
                         const FileLease& lease, bool writes);
// Undoes what an earlier process counted for the same request and did not answer.
void undo_unanswered(Context& context, const Request& request);
// Ends an open by its handle; does nothing for a handle that is closed.
void close_handle(Context& context, std::uint64_t handle);

// A file that was opened for a node, registered for passthrough where that is possible, and not yet
// in the table of open files.
class NewLease {
  public:
    NewLease() = default;
    // Registers the file with the credentials that the calling thread has now. `nodeid`: of a node
    // that may be open already.
    NewLease(Context& context, Opened opened, std::uint64_t nodeid = 0);

    // The file itself, where the lease is one whole file.
    const std::shared_ptr<const sys::UniqueFd>& file() const noexcept {
        return opened_.extents.front().file;
    }
    // As install(), of a file that is counted already.
    void complete(Context& context, std::uint64_t nodeid, OpenFiles::File writer);
    // Counts an open of the node, by this lease unless there is another, which it returns.
    OpenFiles::Lease install(Context& context, std::uint64_t nodeid, OpenFiles::Keep keep,
                             std::uint32_t uid);

  private:
    OpenFiles::Lease make(Context& context);

    Opened opened_;
    std::shared_ptr<const BackingId> backing_;
    Cause cause_;  // why there is no passthrough
    bool better_later_ = false;
};

}  // namespace zc::ops
