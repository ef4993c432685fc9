// RENAME and RENAME2 (RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT).
//
// The table of nodes has to follow the names: a client may have a file open below a directory that
// moves. So renames are one at a time, and whoever finds nothing under an old name waits until the
// new one is noted (LeasedNodes::Renaming).
#include <cerrno>

#include "serve/ops/change.hpp"

namespace zc::ops {

namespace {

struct RenameRequest {
    std::uint64_t newdir = 0;
    unsigned flags = 0;
    const char* name = nullptr;
    const char* new_name = nullptr;
};

bool parse(const Request& request, RenameRequest& into) {
    abi::Rename2In in{};
    std::size_t names = sizeof in;
    if (static_cast<abi::Opcode>(request.header.opcode) == abi::Opcode::rename) {
        abi::RenameIn plain{};
        names = sizeof plain;
        if (!request.parse(plain)) {
            return false;
        }
        in.newdir = plain.newdir;
    } else if (!request.parse(in)) {
        return false;
    }
    into = {in.newdir, in.flags, request.name(names), nullptr};
    if (into.name != nullptr) {
        into.new_name = request.name(names + std::strlen(into.name) + 1);
    }
    return into.new_name != nullptr;
}

// A file that the rename replaces.
struct Replaced {
    bool there = false;
    Found found;
    sys::UniqueFd file;
};

void look_at_replaced(LeasedNodes& leased_nodes, const Spot& to, Replaced& into) {
    into.there = leased_nodes.find(*to.directory, to.name, into.found) == 0;
    const auto nodeid = into.there ? leased_nodes.nodes().nodeid_of(into.found.identity) : 0;
    const bool is_open = !is_metacopy(into.found.identity) && leased_nodes.files().in_use(nodeid);
    if (nodeid != 0 && !is_open &&
        (S_ISDIR(into.found.status.stx_mode) || into.found.status.stx_nlink <= 1)) {
        open_orphan(to, into.found, into.file);
    }
}

// Copies a file of a union up, so that it can be moved, or makes a directory in the upper layer.
int copy_up(LeasedNodes& leased_nodes, const Spot& spot) {
    Found found;
    if (const int error = leased_nodes.find(*spot.directory, spot.name, found); error != 0) {
        return error == kUpcall ? -EXDEV : error;
    }
    if (S_ISDIR(found.status.stx_mode)) {
        const bool moves = spot.directory->root->source->makes_redirects();
        const int error = moves ? spot.as_union()->raise(spot.name) : 0;
        return error == kUpcall ? -EXDEV : error;
    }
    Identity copy;
    const int error = spot.as_union()->copy_up(spot.name, spot.directory->within(found.identity),
                                               CopiedBytes::all, copy);
    copy.lease += spot.directory->root->number;
    if (error == 0 && copy != found.identity) {
        leased_nodes.note_copy(found.identity, copy);
    }
    return error;
}

// What a union has to do before a rename, and without holding up others.
int prepare_move(LeasedNodes& leased_nodes, const Spot& from, const Spot& to, unsigned flags) {
    if (from.as_union() == nullptr && to.as_union() == nullptr) {
        return 0;
    }
    if (from.directory->root != to.directory->root) {
        return -EXDEV;
    }
    const int error = copy_up(leased_nodes, from);
    return error == 0 && (flags & RENAME_EXCHANGE) != 0 ? copy_up(leased_nodes, to) : error;
}

// Clients may also know a copy by the node of the file that it was.
void note_moved(LeasedNodes& leased_nodes, const Identity& moved, const Spot& from,
                const Spot& to) {
    leased_nodes.nodes().renamed(moved, from.link(), to.parent, to.name);
    for (const auto& original : leased_nodes.originals_of(moved)) {
        leased_nodes.nodes().renamed(original, from.link(), to.parent, to.name);
    }
}

void note_replaced(LeasedNodes& leased_nodes, const Spot& to, Replaced& replaced) {
    const auto nodeid = leased_nodes.nodes().nodeid_of(replaced.found.identity);
    if (nodeid == 0) {
        return;
    }
    leased_nodes.nodes().unlinked(replaced.found.identity, to.link());
    leased_nodes.files().drop(nodeid);
    if (replaced.file) {
        leased_nodes.orphans().put(nodeid, std::move(replaced.file));
    }
}

int move(Context& context, const Request& request, const Spot& from, const Spot& to,
         unsigned flags) {
    auto& leased_nodes = context.leased_nodes();
    if (const int error = prepare_move(leased_nodes, from, to, flags); error != 0) {
        return error;
    }
    const LeasedNodes::Renaming renaming(leased_nodes);
    if (!renaming) {
        context.counts.because(Reason::rename_refused);
        return -EAGAIN;
    }
    Found moved;
    Replaced replaced;
    if (const int error = leased_nodes.find(*from.directory, from.name, moved); error != 0) {
        return error == kUpcall ? -EBUSY : error;
    }
    look_at_replaced(leased_nodes, to, replaced);
    const int error =
        from.as_union() != nullptr
            ? from.as_union()->rename(from.name, *to.as_union(), to.name, flags)
            : as_caller(context, request, Groups::where_refused, [&] {
                  return sys::rename_name(from.fd(), from.name, to.fd(), to.name, flags);
              });
    if (error != 0 || (replaced.there && replaced.found.identity == moved.identity)) {
        return error;  // two names of one file: nothing was done
    }
    if ((flags & RENAME_EXCHANGE) != 0) {
        note_moved(leased_nodes, replaced.found.identity, to, from);
    } else if (replaced.there) {
        note_replaced(leased_nodes, to, replaced);
    }
    note_moved(leased_nodes, moved.identity, from, to);
    return 0;
}

}  // namespace

bool rename(Context& context, const Request& request) {
    RenameRequest wanted;
    if (!parse(request, wanted)) {
        return request.failed(-EINVAL);
    }
    Spot from;
    Spot to;
    int error = find_spot(context, request.header.nodeid, wanted.name, from);
    if (error == 0) {
        error = find_spot(context, wanted.newdir, wanted.new_name, to);
    }
    if (error == 0) {
        error = move(context, request, from, to, wanted.flags);
    }
    return error == 0 ? request.done() || true : request.failed(error);
}

}  // namespace zc::ops
