// RENAME and RENAME2 (RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT).
//
// The table of nodes has to follow the names: a client may have a file open below a directory that
// moves. So renames are one at a time, and whoever finds nothing under an old name waits until the
// new one is noted (Mirrors::Renaming).
#include <cerrno>

#include "serve/ops/change.hpp"

namespace zc::ops {

namespace {

struct Wanted {
    std::uint64_t newdir = 0;
    unsigned flags = 0;
    const char* name = nullptr;
    const char* new_name = nullptr;
};

bool parse(const Request& request, Wanted& into) {
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

void look_at_replaced(Mirrors& mirrors, const Spot& to, Replaced& into) {
    into.there = mirrors.find(*to.directory, to.name, into.found) == 0;
    const auto nodeid = into.there ? mirrors.nodes().nodeid_of(into.found.identity) : 0;
    if (nodeid != 0 && !mirrors.files().in_use(nodeid) &&
        (S_ISDIR(into.found.status.stx_mode) || into.found.status.stx_nlink <= 1)) {
        sys::open_beneath(to.fd(), to.name, O_PATH, into.file);
    }
}

void note_replaced(Mirrors& mirrors, const Spot& to, Replaced& replaced) {
    const auto nodeid = mirrors.nodes().nodeid_of(replaced.found.identity);
    if (nodeid == 0) {
        return;
    }
    mirrors.nodes().unlinked(replaced.found.identity, to.link());
    mirrors.files().drop(nodeid);
    if (replaced.file) {
        mirrors.orphans().put(nodeid, std::move(replaced.file));
    }
}

int move(Context& context, const Request& request, const Spot& from, const Spot& to,
         unsigned flags) {
    auto& mirrors = context.mirrors();
    const Mirrors::Renaming renaming(mirrors);
    Found moved;
    Replaced replaced;
    if (const int error = mirrors.find(*from.directory, from.name, moved); error != 0) {
        return error == kHandUp ? -EBUSY : error;
    }
    look_at_replaced(mirrors, to, replaced);
    const int error = as_caller(context, request, Groups::where_refused, [&] {
        return sys::rename_name(from.fd(), from.name, to.fd(), to.name, flags);
    });
    if (error != 0 || (replaced.there && replaced.found.identity == moved.identity)) {
        return error;  // two names of one file: nothing was done
    }
    auto& nodes = mirrors.nodes();
    if ((flags & RENAME_EXCHANGE) != 0) {
        nodes.renamed(replaced.found.identity, to.link(), from.parent, from.name);
    } else if (replaced.there) {
        note_replaced(mirrors, to, replaced);
    }
    nodes.renamed(moved.identity, from.link(), to.parent, to.name);
    return 0;
}

}  // namespace

bool rename(Context& context, const Request& request) {
    Wanted wanted;
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
