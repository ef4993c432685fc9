// OPEN of a file for reading.
//
// All opens of a node share one FileLease: one descriptor, one backing id. An OPEN may race with:
//   - another OPEN of the node: both may open the file, the one that comes second to the table
//     drops its own and takes the other's.
//   - the RELEASE that makes the lease unused: it is only kept then, and an OPEN takes it up again;
//     or it is let go of, and the OPEN finds none. Both are decided under the table's lock.
//   - an outsider who replaces the file: a lease that is kept is used only for a file that has the
//     node's identity now, so that a close and an open see the file that is there.
#include <cerrno>

#include "serve/open_reply.hpp"
#include "serve/ops/mtime.hpp"
#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

constexpr int kFlags = O_RDONLY | O_NONBLOCK | O_NOCTTY;

int open_file(Context& context, std::uint64_t nodeid, sys::UniqueFd& into, struct ::statx& status) {
    auto& mirrors = context.mirrors();
    int flags = kFlags | O_NOATIME;
    for (bool given_back = false;;) {
        const int error = mirrors.open(nodeid, flags, context.counts, into, status);
        if (error == -EPERM && (flags & O_NOATIME) != 0) {
            flags &= ~O_NOATIME;
        } else if ((error == -EMFILE || error == -ENFILE) && !given_back) {
            given_back = true;
            mirrors.give_back_descriptors();
        } else if (error == -EAGAIN) {
            return kHandUp;  // another process holds a lease of the file: control waits for it
        } else {
            return error;
        }
    }
}

// A metacopy of overlayfs is one hole; without sight of its mark, control decides.
bool may_be_metacopy(const Mirrors& mirrors, std::uint64_t nodeid, int file) {
    const auto root = mirrors.any_unions() ? mirrors.root_above(nodeid) : nullptr;
    return root != nullptr && root->merged && !root->sees_trusted && sys::is_all_hole(file);
}

}  // namespace

// O_NOATIME is for owners (open(2)); a FIFO in the file's place must not make the open wait for a
// writer.
int open_for_reading(Context& context, std::uint64_t nodeid, sys::UniqueFd& into,
                     struct ::statx& status) {
    const int error = open_file(context, nodeid, into, status);
    if (error != 0) {
        return error;
    }
    if (S_ISREG(status.stx_mode)) {
        return may_be_metacopy(context.mirrors(), nodeid, into.get()) ? kHandUp : 0;
    }
    return S_ISDIR(status.stx_mode) ? -EISDIR : -ESTALE;
}

namespace {

int make_lease(Context& context, std::uint64_t nodeid, struct ::statx& status,
               OpenFiles::Lease& into) {
    auto file = std::make_shared<sys::UniqueFd>();
    if (const int error = open_for_reading(context, nodeid, *file, status); error != 0) {
        return error;
    }
    auto& state = context.state;
    auto [backing, reason] = state.backings.add(file->get());
    const auto keep = reason.empty() ? OpenFiles::Keep::yes : OpenFiles::Keep::no;
    std::vector<Extent> extents{{std::move(file), next_file_id(), 0, kWholeFile}};
    auto made =
        std::make_shared<const FileLease>(std::move(extents), std::move(backing), state.windows);
    into = state.mirrors.files().open_with(nodeid, std::move(made), keep);
    state.ledger.opened(into->passthrough() ? "passthrough" : "cached", reason);
    return 0;
}

int find_lease(Context& context, std::uint64_t nodeid, struct ::statx& status,
               OpenFiles::Lease& into) {
    auto& mirrors = context.mirrors();
    if (auto kept = mirrors.files().find(nodeid)) {
        if (const int error = mirrors.status(nodeid, context.counts, status); error != 0) {
            mirrors.files().drop(nodeid);
            return error;
        }
        if ((into = mirrors.files().open(nodeid))) {
            context.counts.backing_hits.add();
            return 0;
        }
    }
    return make_lease(context, nodeid, status, into);
}

}  // namespace

bool open(Context& context, const Request& request) {
    const auto nodeid = request.header.nodeid;
    abi::OpenIn open{};
    if (!is_own(nodeid) || !request.parse(open)) {
        return false;
    }
    if ((open.flags & O_ACCMODE) != O_RDONLY || (open.flags & O_TRUNC) != 0) {
        return request.failed(-EROFS);
    }
    struct ::statx status {};
    OpenFiles::Lease lease;
    if (const int error = find_lease(context, nodeid, status, lease); error != 0) {
        return request.failed(error);
    }
    abi::OpenOut out{kOwnBit, 0, 0};
    answer_by(lease.get(), out);
    if (!lease->passthrough()) {
        const bool same = context.state.config.immutable ||
                          context.mirrors().nodes().unchanged(
                              nodeid, status.stx_size, mtime_of(status), mtime_is_settled(status));
        out.open_flags |= same ? abi::fopen::keep_cache : 0;
    }
    if (!request.answer_with(out)) {
        context.mirrors().files().release(nodeid, sys::coarse_milliseconds());
    }
    return true;
}

}  // namespace zc::ops
