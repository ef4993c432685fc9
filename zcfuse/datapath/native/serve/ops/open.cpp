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
#include <tuple>

#include "serve/open_reply.hpp"
#include "serve/ops/mtime.hpp"
#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

int make_lease(Context& context, std::uint64_t nodeid, struct ::statx& status, Freshness& freshness,
               OpenFiles::Lease& into) {
    Opened opened;
    auto& state = context.state;
    if (const int error = state.mirrors.open(nodeid, context.counts, opened, freshness);
        error != 0) {
        return error;
    }
    status = opened.status;
    std::shared_ptr<const BackingId> backing;
    std::string reason = kMadeOfExtents;
    auto keep = OpenFiles::Keep::yes;
    if (is_whole_file(opened.extents)) {
        std::tie(backing, reason) = state.backings.add(opened.extents.front().file->get());
        keep = reason.empty() ? OpenFiles::Keep::yes : OpenFiles::Keep::no;
    }
    auto made = std::make_shared<const FileLease>(std::move(opened.extents), std::move(backing),
                                                  state.windows);
    into = state.mirrors.files().open_with(nodeid, std::move(made), keep);
    state.ledger.opened(into->passthrough() ? "passthrough" : "cached", reason);
    return 0;
}

// A lease that is there is counted before it is compared: one look into the table, not two.
int find_lease(Context& context, std::uint64_t nodeid, struct ::statx& status, Freshness& freshness,
               OpenFiles::Lease& into) {
    auto& mirrors = context.mirrors();
    into = mirrors.files().open(nodeid);
    if (!into) {
        return make_lease(context, nodeid, status, freshness, into);
    }
    const int error = mirrors.reopen(nodeid, context.counts, status, freshness);
    if (error == 0) {
        context.counts.backing_hits.add();
    } else {
        mirrors.files().release(nodeid, sys::coarse_milliseconds());
        mirrors.files().drop(nodeid);
    }
    return error;
}

// Whether the kernel may keep the pages that it has of the file.
bool keeps_cache(Context& context, std::uint64_t nodeid, const struct ::statx& status,
                 Freshness freshness) {
    return context.state.config.immutable || freshness == Freshness::fixed ||
           context.mirrors().nodes().unchanged(nodeid, status.stx_size, mtime_of(status),
                                               mtime_is_settled(status));
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
    auto freshness = Freshness::timed;
    OpenFiles::Lease lease;
    if (const int error = find_lease(context, nodeid, status, freshness, lease); error != 0) {
        return request.failed(error);
    }
    abi::OpenOut out{kOwnBit, 0, 0};
    answer_by(lease.get(), out);
    if (!lease->passthrough()) {
        context.mirrors().hold(nodeid, NodeTable::Held::pages);
        out.open_flags |=
            keeps_cache(context, nodeid, status, freshness) ? abi::fopen::keep_cache : 0;
    }
    if (!request.answer_with(out)) {
        context.mirrors().files().release(nodeid, sys::coarse_milliseconds());
    }
    return true;
}

}  // namespace zc::ops
