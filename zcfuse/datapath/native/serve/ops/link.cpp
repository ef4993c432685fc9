// LINK: another name for a node. Made from a descriptor of the node, so that it can be no other
// file, and so that a file of O_TMPFILE gets its first name. Both names have the same node, also
// where the kernel knows the one before its copy: with another node the old name would show its
// cached attributes.
#include "serve/ops/recorded.hpp"

namespace zc::ops {

namespace {

// The identity of a node within the source of a directory.
Identity identity_in(Context& context, const Spot& spot, std::uint64_t nodeid) {
    const auto node = context.leased_nodes().nodes().find(nodeid);
    return node ? spot.directory->within(node->identity) : Identity{};
}

}  // namespace

bool link(Context& context, const Request& request) {
    abi::LinkIn wanted{};
    Spot spot;
    if (!request.parse(wanted)) {
        return false;
    }
    int error = find_spot(context, request.header.nodeid, request.name(sizeof wanted), spot);
    Held file;
    if (error == 0) {
        error = file.open(context, wanted.oldnodeid);
    }
    const auto node = context.leased_nodes().nodes().find(wanted.oldnodeid);
    const bool made =
        error == 0 && node && node->identity.type != S_IFDIR &&
        was_made(context, request, spot, node->identity.type & S_IFMT, wanted.oldnodeid);
    if (error == 0 && !made && spot.as_union() != nullptr) {
        error = spot.as_union()->link(file.get(), identity_in(context, spot, wanted.oldnodeid),
                                      spot.name);
    } else if (error == 0 && !made) {
        error = as_caller(context, request, Groups::where_refused,
                          [&] { return sys::make_link(file.get(), spot.fd(), spot.name); });
    }
    return error == 0 ? answer_made(context, request, spot, wanted.oldnodeid)
                      : request.failed(error);
}

}  // namespace zc::ops
