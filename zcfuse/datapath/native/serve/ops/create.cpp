// CREATE and TMPFILE: a new file and its first open in one request.
//
// The file is always made by this request (O_EXCL) and opened for reading and writing, so that one
// descriptor serves every later open of the node. It may race with:
//   - an outsider who makes the name first: a client that allows that gets ESTALE, on which the
//     kernel looks the name up and opens the file that it finds.
//   - a LOOKUP of the name: it counts the same node; both opens meet in the table of open files.
#include <cerrno>

#include "serve/open_reply.hpp"
#include "serve/ops/change.hpp"
#include "serve/ops/open_lease.hpp"
#include "serve/ops/recorded.hpp"

namespace zc::ops {

namespace {

// All opens of the node share the descriptor, whatever this client asked for.
constexpr unsigned kSharedFlags = O_RDWR;

bool writes(std::uint32_t flags) noexcept {
    return (flags & O_ACCMODE) != O_RDONLY;
}

// The backing id is registered as the client: the kernel writes with these credentials later.
int make_file(Context& context, const Request& request, const Spot& spot,
              const abi::CreateIn& wanted, unsigned kind, NewLease& into) {
    context.identity.use_umask(wanted.umask);
    const auto flags = static_cast<int>(kind | kSharedFlags);
    const auto attempt = [&](int directory, const char* name) {
        sys::UniqueFd file;
        int error = sys::create_file(directory, name, flags, wanted.mode, file);
        if (error == -EMFILE || error == -ENFILE) {
            context.leased_nodes().give_back_descriptors();
            error = sys::create_file(directory, name, flags, wanted.mode, file);
        }
        if (error == 0) {
            Opened whole;
            whole.extents = {
                {std::make_shared<sys::UniqueFd>(std::move(file)), next_file_id(), 0, kWholeFile}};
            into = NewLease(context, std::move(whole));
        }
        return error;
    };
    const auto groups = groups_for(wanted.mode);
    return (kind & O_CREAT) != 0
               ? make_as_caller(context, request, spot, groups, false, attempt)
               : as_caller(context, request, groups, [&] { return attempt(spot.fd(), spot.name); });
}

// Removes a file that an earlier process made for the same request, so that the request makes it
// again. No client has it yet. A new file opens whatever its mode; an existing one may not.
int unmake(Context& context, const Request& request, const Spot& spot) {
    auto& leased_nodes = context.leased_nodes();
    Found found;
    if (const int error = leased_nodes.find(*spot.directory, spot.name, found); error != 0) {
        return error == kUpcall ? -EIO : error;
    }
    if (found.status.stx_size > 0) {
        return -EEXIST;  // an outsider's
    }
    if (const auto nodeid = leased_nodes.nodes().nodeid_of(found.identity); nodeid != 0) {
        leased_nodes.nodes().forget(nodeid, 1);
    }
    if (spot.as_union() != nullptr) {
        return spot.as_union()->remove(spot.name, false);
    }
    return as_caller(context, request, Groups::where_refused,
                     [&] { return sys::remove_name(spot.fd(), spot.name, false); });
}

// The record says that the name was free, and it stays.
int make_new_file(Context& context, const Request& request, const Spot& spot,
                  const abi::CreateIn& wanted, NewLease& into) {
    const int error =
        was_made(context, request, spot, S_IFREG) ? unmake(context, request, spot) : 0;
    return error != 0 ? error : make_file(context, request, spot, wanted, O_CREAT | O_EXCL, into);
}

bool answer_created(Context& context, const Request& request, const Spot& spot, const char* name,
                    const abi::CreateIn& wanted, NewLease made) {
    auto& leased_nodes = context.leased_nodes();
    Found found;
    const auto file = made.file();
    if (const int error = LeasedNodes::made(*spot.directory, file->get(), name, found);
        error != 0) {
        return request.failed(error == kUpcall ? -EIO : error);
    }
    const auto nodeid = leased_nodes.nodes().count(found.identity, spot.parent, name, false);
    if (*name == '\0') {
        keep_nameless(context, nodeid, file->get());
    }
    const auto lease = made.install(context, nodeid, OpenFiles::Keep::no, request.header.uid);
    if (writes(wanted.flags)) {
        leased_nodes.files().begin_writing(nodeid, file);
    }
    const auto handle = new_handle(context, request, nodeid, *lease, writes(wanted.flags));
    if (handle == 0) {
        leased_nodes.files().release(nodeid, sys::coarse_milliseconds(), writes(wanted.flags));
        leased_nodes.nodes().forget(nodeid, 1);
        return request.failed(-ENFILE);
    }
    abi::CreateOut out{entry_of(nodeid, found.status, leased_nodes.validity(Freshness::timed)),
                       {handle, 0, 0}};
    // These attributes may be kept, unlike those of other files that are written: the kernel drops
    // them when the file first gets a size, and before that no mapping has a page to store to.
    answer_by(lease.get(), true, out.open);
    if (!request.answer_with(out)) {
        close_handle(context, handle);
        leased_nodes.nodes().forget(nodeid, 1);
    }
    return true;
}

}  // namespace

bool create(Context& context, const Request& request) {
    abi::CreateIn wanted{};
    Spot spot;
    if (!request.parse(wanted)) {
        return false;
    }
    undo_unanswered(context, request);
    if (const int error =
            find_spot(context, request.header.nodeid, request.name(sizeof wanted), spot);
        error != 0) {
        return request.failed(error);
    }
    if (const int error = refuse_open(context, request, 0, true); error != 0) {
        return request.failed(error);
    }
    NewLease made;
    int error = make_new_file(context, request, spot, wanted, made);
    if (error == -EEXIST && (wanted.flags & O_EXCL) == 0) {
        error = -ESTALE;
    }
    if (error != 0) {
        return request.failed(error);
    }
    return answer_created(context, request, spot, spot.name, wanted, std::move(made));
}

bool tmpfile(Context& context, const Request& request) {
    abi::CreateIn wanted{};
    Spot spot;
    if (!request.parse(wanted)) {
        return false;
    }
    if (const int error = find_parent(context, request.header.nodeid, spot); error != 0) {
        return request.failed(error);
    }
    spot.name = ".";
    if (const int error = refuse_open(context, request, 0, true); error != 0) {
        return request.failed(error);
    }
    NewLease made;
    if (const int error =
            make_file(context, request, spot, wanted, O_TMPFILE | (wanted.flags & O_EXCL), made);
        error != 0) {
        return request.failed(error);
    }
    return answer_created(context, request, spot, "", wanted, std::move(made));
}

}  // namespace zc::ops
