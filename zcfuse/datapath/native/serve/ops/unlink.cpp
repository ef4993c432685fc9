// UNLINK and RMDIR.
//
// A node that the kernel still knows behind that has no path any more: a descriptor of it is taken
// before (Orphaned). A descriptor that is only kept for the next open is given up, so that the
// space is free at once.
#include <cerrno>

#include "serve/ops/recorded.hpp"

namespace zc::ops {

namespace {

int remove(Context& context, const Request& request, const Spot& spot) {
    const bool is_directory = static_cast<abi::Opcode>(request.header.opcode) == abi::Opcode::rmdir;
    return spot.as_union() != nullptr
               ? spot.as_union()->remove(spot.name, is_directory)
               : as_caller(context, request, Groups::where_refused,
                           [&] { return sys::remove_name(spot.fd(), spot.name, is_directory); });
}

}  // namespace

bool unlink(Context& context, const Request& request) {
    auto& leased_nodes = context.leased_nodes();
    Spot spot;
    if (const int error = find_spot(context, request.header.nodeid, request.name(), spot);
        error != 0) {
        return request.failed(error);
    }
    Found found;
    int error = leased_nodes.find(*spot.directory, spot.name, found);
    const auto before = recorded(context, request);
    const bool was_removed =
        before && (error == -ENOENT ||
                   (error == 0 && !is_still(context, found.identity, before->from.before)));
    if (was_removed) {
        found.identity = before->from.before;
    } else if (error != 0) {
        return request.failed(error == kUpcall ? -EBUSY : error);
    }
    const auto nodeid = leased_nodes.nodes().nodeid_of(found.identity);
    Orphaned orphan;
    if (!was_removed) {
        orphan.take(context, spot, found);
        record(context, request, {spot.parent, spot.name, found.identity});
        if (error = remove(context, request, spot); error != 0) {
            return request.failed(error);
        }
    }
    if (nodeid != 0) {
        leased_nodes.nodes().unlinked(found.identity, spot.link());
        leased_nodes.files().drop(nodeid);
    }
    orphan.stays();
    request.done();
    return true;
}

}  // namespace zc::ops
