// OPEN of a file.
//
// All opens of a node share one FileLease: one descriptor, one backing id. The kernel opens a
// backing file with each client's own flags, so that the lease needs no descriptor that can be
// written; the data path itself writes and truncates through the node's writer. An OPEN may
// race with:
//   - another OPEN of the node: both may open the file, the one that comes second to the table
//     drops its own and takes the other's.
//   - the RELEASE that makes the lease unused: it is only kept then, and an OPEN takes it up again;
//     or it is let go of, and the OPEN finds none. Both are decided under the table's lock.
//   - an outsider who replaces the file: a lease that is kept is used only for a file that has the
//     node's identity now, so that a close and an open see the file that is there.
#include <algorithm>
#include <cerrno>

#include "serve/forget_names.hpp"
#include "serve/mtime.hpp"
#include "serve/open_reply.hpp"
#include "serve/ops/change.hpp"
#include "serve/ops/open_lease.hpp"
#include "serve/ops/send_ahead.hpp"

namespace zc::ops {

namespace {

bool writes(const abi::OpenIn& open) noexcept {
    return (open.flags & O_ACCMODE) != O_RDONLY;
}

// A file that the daemon may write but not read, as an ordinary user's of mode 0200.
int open_to_write_only(Context& context, std::uint64_t nodeid, Opened& into) {
    auto file = std::make_shared<sys::UniqueFd>();
    const int error = context.leased_nodes().hold(nodeid, O_WRONLY | O_NONBLOCK, context.counts,
                                                  *file, into.status);
    into.extents = {{std::move(file), next_file_id(), 0, kWholeFile}};
    return error;
}

// Opens the file, and again if only the reserve has room for it: that gives back what is only kept.
int open_within_reserve(Context& context, const Request& request, Opened& into,
                        Freshness& freshness) {
    auto& leased_nodes = context.leased_nodes();
    const auto spared = [&] {
        return std::all_of(into.extents.begin(), into.extents.end(), [&](const Extent& extent) {
            return leased_nodes.spares(request.header.uid, extent.file->get());
        });
    };
    const auto attempt = [&] {
        into = {};
        return leased_nodes.open(request.header.nodeid, context.counts, into, freshness);
    };
    int error = attempt();
    if (error != 0 || spared()) {
        return error;
    }
    error = attempt();
    if (error != 0 || spared()) {
        return error;
    }
    context.counts.because(Reason::reserve_refused);
    return -EMFILE;
}

int make_lease(Context& context, const Request& request, const abi::OpenIn& open,
               struct ::statx& status, Freshness& freshness, OpenFiles::Lease& into) {
    const auto nodeid = request.header.nodeid;
    Opened opened;
    auto keep = OpenFiles::Keep::yes;
    int error = open_within_reserve(context, request, opened, freshness);
    if (error == -EACCES && (open.flags & O_ACCMODE) == O_WRONLY) {
        keep = OpenFiles::Keep::no;
        error = open_to_write_only(context, nodeid, opened);
    }
    if (error != 0) {
        return error;
    }
    const auto mode = opened.mode.value_or(Mode::automatic);
    if (mode == Mode::upcall) {
        return kUpcall;
    }
    status = opened.status;
    NewLease made;
    if (writes(open)) {
        // The kernel writes with the credentials of whom the file was registered for.
        error = as_caller(context, request, Groups::where_refused, [&] {
            made = NewLease(context, std::move(opened), nodeid);
            return 0;
        });
    } else {
        made = NewLease(context, std::move(opened), nodeid);
    }
    if (error == 0) {
        into = made.install(context, nodeid, keep, request.header.uid);
    }
    return error;
}

// A lease that is there is counted before it is compared: one look into the table, not two. A file
// whose names are gone is opened again only while another client has it open (`in_use`).
int find_lease(Context& context, const Request& request, const abi::OpenIn& open,
               struct ::statx& status, Freshness& freshness, OpenFiles::Lease& into) {
    auto& files = context.leased_nodes().files();
    const auto nodeid = request.header.nodeid;
    if (writes(open)) {
        files.drop(nodeid);  // a kept one was registered as another client
    }
    const bool in_use = !context.state.config.read_only && files.in_use(nodeid) != nullptr;
    into = files.open(nodeid, request.header.uid);
    if (!into) {
        return make_lease(context, request, open, status, freshness, into);
    }
    int error = context.leased_nodes().reopen(nodeid, context.counts, status, freshness);
    if (error == -ESTALE && in_use && into->whole_file() != nullptr) {
        error = sys::status_of(into->whole_file()->get(), "", false, status);
    }
    if (error == 0) {
        context.counts.backing_hits.add();
    } else {
        files.release(nodeid, sys::coarse_milliseconds());
        files.drop(nodeid);
    }
    return error;
}

// Whether the kernel may keep the pages that it has of the file.
bool keeps_cache(Context& context, std::uint64_t nodeid, const struct ::statx& status,
                 Freshness freshness) {
    return context.state.config.immutable || freshness == Freshness::fixed ||
           context.leased_nodes().nodes().unchanged(nodeid, status.stx_size, mtime_of(status),
                                                    mtime_is_settled(status));
}

// Opens the file again as the client, for what the client's flags say beyond reading. The backing
// filesystem refuses here what it refuses natively: a file that is immutable or only appended to.
int open_writer(Context& context, const Request& request, const abi::OpenIn& open, int file,
                OpenFiles::File& into) {
    const int truncate = static_cast<int>(open.flags & O_TRUNC);
    const int append = static_cast<int>(open.flags & O_APPEND);
    sys::UniqueFd opened;
    const auto attempt = [&] {
        const int error = sys::reopen(file, O_WRONLY | O_NONBLOCK | truncate, opened);
        return error == -EPERM && append != 0
                   ? sys::reopen(file, O_WRONLY | O_NONBLOCK | O_APPEND | truncate, opened)
                   : error;
    };
    const int error = as_caller(context, request,
                                truncate != 0 ? Groups::at_once : Groups::where_refused, attempt);
    into = std::make_shared<const sys::UniqueFd>(std::move(opened));
    return error;
}

int begin_writing(Context& context, const Request& request, const abi::OpenIn& open,
                  const FileLease& lease, struct ::statx& status) {
    OpenFiles::File writer;
    int error = open_writer(context, request, open, lease.whole_file()->get(), writer);
    if (error == 0) {
        error = sys::status_of(writer->get(), "", false, status);
    }
    if (error == 0 && writes(open)) {
        context.leased_nodes().files().begin_writing(request.header.nodeid, std::move(writer));
        // The kernel's FUSE sees no store through a mapping of a file that passes through. While
        // the file is written it keeps no attributes; these are from before.
        if (lease.passthrough() && (open.flags & O_ACCMODE) == O_RDWR) {
            forget_attributes(context.state, request.header.nodeid);
        }
    }
    return error;
}

}  // namespace

bool open(Context& context, const Request& request) {
    const auto nodeid = request.header.nodeid;
    abi::OpenIn open{};
    if (!is_own(nodeid) || !request.parse(open)) {
        return false;
    }
    undo_unanswered(context, request);
    const bool changes = writes(open) || (open.flags & O_TRUNC) != 0;
    if (changes && context.state.config.read_only) {
        return request.failed(-EROFS);
    }
    if (const int refused = changes ? context.leased_nodes().refused_write(nodeid) : 0;
        refused != 0) {
        return request.failed(refused);
    }
    if (changes) {
        const auto bytes = (open.flags & O_TRUNC) != 0 ? CopiedBytes::none : CopiedBytes::all;
        if (const int error = context.leased_nodes().prepare_change(nodeid, context.counts, bytes);
            error != 0) {
            return request.failed(error == kUpcall ? -EROFS : error);
        }
    }
    if (context.leased_nodes().is_copied(nodeid)) {
        return request.failed(-ESTALE);  // the copy is another node
    }
    if (const int refused = refuse_open(context, request, nodeid, changes); refused != 0) {
        return request.failed(refused);
    }
    auto& files = context.leased_nodes().files();
    struct ::statx status {};
    auto freshness = Freshness::timed;
    OpenFiles::Lease lease;
    int error = find_lease(context, request, open, status, freshness, lease);
    if (error != 0) {
        return request.failed(error);
    }
    const bool strict = context.leased_nodes().is_strict(nodeid);
    if (strict) {
        lease_for_strict(context, nodeid, *lease);
    }
    if (changes) {
        error = begin_writing(context, request, open, *lease, status);
        if (error != 0) {
            files.release(nodeid, sys::coarse_milliseconds());
            return request.failed(error);
        }
    }
    const auto handle = new_handle(context, request, nodeid, *lease, writes(open));
    if (handle == 0) {
        files.release(nodeid, sys::coarse_milliseconds(), writes(open));
        return request.failed(-ENFILE);
    }
    abi::OpenOut out{handle, 0, 0};
    answer_by(lease.get(), !strict, out);
    auto way = Way::passthrough;
    const bool sent = send_ahead(context, request, *lease, status);
    if (!lease->passthrough() && !strict) {
        const bool keeps = keeps_cache(context, nodeid, status, freshness);
        out.open_flags |= keeps || sent ? abi::fopen::keep_cache : 0;
        way = sent ? Way::pool : Way::cached;
    } else if (!lease->passthrough()) {
        way = Way::pool;
    }
    if (context.counts.trace.on()) {
        context.counts.trace.travels(way, size_of(*lease, status));
    }
    if (!request.answer_with(out)) {
        close_handle(context, handle);
    }
    return true;
}

}  // namespace zc::ops
