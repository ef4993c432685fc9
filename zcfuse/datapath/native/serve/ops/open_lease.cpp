#include "serve/ops/open_lease.hpp"

#include <cerrno>
#include <tuple>
#include <utility>

namespace zc::ops {

std::uint64_t size_of(const FileLease& lease, const struct ::statx& version) {
    struct ::statx shown {};
    const bool described = lease.shown() != nullptr && lease.shown()->status(lease, shown) == 0;
    return described ? shown.stx_size : version.stx_size;
}

void lease_for_strict(Context& context, std::uint64_t nodeid, const FileLease& lease) {
    const auto* file = lease.whole_file();
    if (file == nullptr) {
        context.counts.because(Reason::strict_parts);
        return;
    }
    const int error = context.state.coherence->read_leases().take(nodeid, *file);
    if (error != 0) {
        context.counts.because(error == -EAGAIN ? Reason::strict_written : Reason::strict_refused);
    }
}

int refuse_open(Context& context, const Request& request, std::uint64_t nodeid, bool keeps_more) {
    const auto uid = request.header.uid;
    if (!context.leased_nodes().files().admits(uid, nodeid)) {
        context.counts.because(Reason::files_refused);
        return -EMFILE;
    }
    if (keeps_more && !context.leased_nodes().spares_another(uid)) {
        context.counts.because(Reason::reserve_refused);
        return -EMFILE;
    }
    return 0;
}

namespace {

// A file without a name, of which the holder kept a descriptor.
int open_nameless(Context& context, std::uint64_t nodeid, Opened& into) {
    auto file = std::make_shared<sys::UniqueFd>();
    const int error = context.leased_nodes().hold(nodeid, O_RDONLY | O_NONBLOCK, context.counts,
                                                  *file, into.status);
    into.extents = {{std::move(file), next_file_id(), 0, kWholeFile}};
    return error;
}

// With the daemon's credentials: the client's open was granted before.
int open_writer_again(const sys::UniqueFd& file, OpenFiles::File& into) {
    sys::UniqueFd opened;
    int error = sys::reopen(file.get(), O_WRONLY | O_NONBLOCK, opened);
    if (error == -EPERM) {
        error = sys::reopen(file.get(), O_WRONLY | O_NONBLOCK | O_APPEND, opened);
    }
    into = std::make_shared<const sys::UniqueFd>(std::move(opened));
    return error;
}

}  // namespace

int reopen_inherited(Context& context, std::uint64_t nodeid) {
    const auto inherited = context.leased_nodes().files().inherited(nodeid);
    if (!inherited) {
        return 0;
    }
    Opened opened;
    auto freshness = Freshness::timed;
    int error = context.leased_nodes().open(nodeid, context.counts, opened, freshness);
    if (error == -ESTALE) {
        error = open_nameless(context, nodeid, opened);
    }
    if (error != 0) {
        return error == kUpcall ? -ESTALE : error;
    }
    NewLease made(context, std::move(opened), nodeid);
    OpenFiles::File writer;
    if (inherited->written) {
        if (const int failed = open_writer_again(*made.file(), writer); failed != 0) {
            return failed;
        }
    }
    made.complete(context, nodeid, std::move(writer));
    return 0;
}

std::uint64_t new_handle(Context& context, const Request& request, std::uint64_t nodeid,
                         const FileLease& lease, bool writes) {
    return context.state.surviving->handles().open(
        {0, nodeid, request.header.unique & ~abi::kResendBit, request.header.uid,
         lease.backing_id(), writes ? 1U : 0U, 0});
}

void undo_unanswered(Context& context, const Request& request) {
    if ((request.header.unique & abi::kResendBit) == 0) {
        return;
    }
    const auto unique = request.header.unique & ~abi::kResendBit;
    if (const auto handle = context.state.surviving->handles().take(unique)) {
        context.leased_nodes().files().release(handle->nodeid, sys::coarse_milliseconds(),
                                               handle->writes != 0);
    }
}

void close_handle(Context& context, std::uint64_t handle) {
    if (const auto closed = context.state.surviving->handles().close(handle)) {
        context.leased_nodes().files().release(closed->nodeid, sys::coarse_milliseconds(),
                                               closed->writes != 0);
    }
}

NewLease::NewLease(Context& context, Opened opened, std::uint64_t nodeid)
    : opened_(std::move(opened)), cause_{Reason::passthrough_extents} {
    auto& extents = opened_.extents;
    const bool leasable = context.leased_nodes().is_strict(nodeid) && is_whole_file(extents);
    if (leasable) {
        auto& file = extents.front().file;
        file = context.state.coherence->read_leases().enrol(nodeid, std::move(file));
    }
    if (auto inherited = context.leased_nodes().files().inherited(nodeid)) {
        // The kernel has the inode open, and wants the same mode and backing id of each open.
        backing_ = std::move(inherited->backing);
        cause_ = {};
        better_later_ = !backing_;
        return;
    }
    const auto mode = opened_.mode.value_or(Mode::automatic);
    if (!is_whole_file(extents)) {
        better_later_ = !opened_.keeps;
    } else if (mode != Mode::automatic && mode != Mode::passthrough) {
        cause_ = {};
    } else {
        // The kernel keeps a lease on an open file that it has registered, and after this process
        // nobody could give it back: a writer would wait for `fs.lease-break-time`.
        const auto keeps = leasable ? Backings::Keeps::another : Backings::Keeps::itself;
        std::tie(backing_, cause_) = context.state.backings.add(extents.front().file->get(), keeps);
        better_later_ = static_cast<bool>(cause_);
    }
}

OpenFiles::Lease NewLease::make(Context& context) {
    return std::make_shared<const FileLease>(std::move(opened_.extents), std::move(backing_),
                                             context.state.windows, opened_.mode,
                                             std::move(opened_.shown));
}

void NewLease::complete(Context& context, std::uint64_t nodeid, OpenFiles::File writer) {
    context.leased_nodes().files().complete(nodeid, make(context), std::move(writer));
}

OpenFiles::Lease NewLease::install(Context& context, std::uint64_t nodeid, OpenFiles::Keep keep,
                                   std::uint32_t uid) {
    auto& state = context.state;
    auto lease = state.leased_nodes.files().open_with(
        nodeid, make(context), better_later_ ? OpenFiles::Keep::no : keep, uid);
    state.ledger.opened(lease->passthrough() ? "passthrough" : "cached", cause_);
    return lease;
}

}  // namespace zc::ops
