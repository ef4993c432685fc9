// RENAME and RENAME2 (RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT).
//
// The table of nodes has to follow the names: a client may have a file open below a directory that
// moves. So renames are one at a time, and whoever finds nothing under an old name waits until the
// new one is noted (LeasedNodes::Renaming).
#include <cerrno>

#include "serve/ops/recorded.hpp"

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
    Copied copy;
    const int error = spot.as_union()->copy_up(spot.name, spot.directory->within(found.identity),
                                               CopiedBytes::all, copy);
    copy.identity.lease += spot.directory->root->number;
    if (error == 0 && copy.identity != found.identity) {
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

// Looks at both names. What `to` leads to is replaced, unless the names are exchanged.
int look(Context& context, const Spot& from, const Spot& to, Found& moved, Found& replaced) {
    auto& leased_nodes = context.leased_nodes();
    if (const int error = leased_nodes.find(*from.directory, from.name, moved); error != 0) {
        return error == kUpcall ? -EBUSY : error;
    }
    if (leased_nodes.find(*to.directory, to.name, replaced) != 0) {
        replaced = {};
    }
    return 0;
}

int move(Context& context, const Request& request, const Spot& from, const Spot& to,
         unsigned flags) {
    auto& leased_nodes = context.leased_nodes();
    const auto before = recorded(context, request);
    if (before && was_renamed(context, *before, from, to)) {
        note_renamed(context, *before, from, to);
        return 0;
    }
    if (const int error = prepare_move(leased_nodes, from, to, flags); error != 0) {
        return error;
    }
    const LeasedNodes::Renaming renaming(leased_nodes);
    if (!renaming) {
        context.counts.because(Reason::rename_refused);
        return -EAGAIN;
    }
    Found moved;
    Found replaced;
    if (const int error = look(context, from, to, moved, replaced); error != 0) {
        return error;
    }
    ChangeMemory::Change change;
    change.flags = flags;
    change.from = {from.parent, from.name, moved.identity};
    change.to = {to.parent, to.name, replaced.identity};
    Orphaned orphan;
    if ((flags & RENAME_EXCHANGE) == 0 && replaced.identity != moved.identity) {
        orphan.take(context, to, replaced);
    }
    record(context, request, change.from, change.to, flags);
    const int error =
        from.as_union() != nullptr
            ? from.as_union()->rename(from.name, *to.as_union(), to.name, flags)
            : as_caller(context, request, Groups::where_refused, [&] {
                  return sys::rename_name(from.fd(), from.name, to.fd(), to.name, flags);
              });
    if (error != 0 || replaced.identity == moved.identity) {
        return error;  // two names of one file: nothing was done
    }
    orphan.stays();
    note_renamed(context, change, from, to);
    return 0;
}

}  // namespace

bool was_renamed(Context& context, const ChangeMemory::Change& change, const Spot& from,
                 const Spot& to) {
    Found moved;
    Found left;
    auto& leased_nodes = context.leased_nodes();
    if (leased_nodes.find(*to.directory, to.name, moved) != 0 ||
        moved.identity != change.from.before || change.to.before == change.from.before) {
        return false;
    }
    // What else is there came behind the rename, or with it.
    const bool is_left = leased_nodes.find(*from.directory, from.name, left) == 0;
    return !is_left || left.identity != change.from.before;
}

void note_renamed(Context& context, const ChangeMemory::Change& change, const Spot& from,
                  const Spot& to) {
    auto& leased_nodes = context.leased_nodes();
    const auto& replaced = change.to.before;
    if ((change.flags & RENAME_EXCHANGE) != 0) {
        note_moved(leased_nodes, replaced, to, from);
    } else if (const auto nodeid = leased_nodes.nodes().nodeid_of(replaced); nodeid != 0) {
        leased_nodes.nodes().unlinked(replaced, to.link());
        leased_nodes.files().drop(nodeid);
    }
    note_moved(leased_nodes, change.from.before, from, to);
}

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
