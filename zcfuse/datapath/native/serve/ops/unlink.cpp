// UNLINK and RMDIR.
//
// A node that the kernel still knows behind that has no path any more: a descriptor of it is taken
// before (nodes/orphans.hpp), unless clients have it open: what they have open of a metacopy is
// another file. A descriptor that is only kept for the next open is given up, so that the space is
// free at once.
#include <cerrno>

#include "serve/ops/change.hpp"

namespace zc::ops {

namespace {

// Whether no name is left when this one is gone.
bool is_last_name(const struct ::statx& status) noexcept {
    return S_ISDIR(status.stx_mode) || status.stx_nlink <= 1;
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
    if (const int error = leased_nodes.find(*spot.directory, spot.name, found); error != 0) {
        return request.failed(error == kUpcall ? -EBUSY : error);
    }
    const auto nodeid = leased_nodes.nodes().nodeid_of(found.identity);
    sys::UniqueFd orphan;
    const bool is_open = !is_metacopy(found.identity) && leased_nodes.files().in_use(nodeid);
    if (nodeid != 0 && is_last_name(found.status) && !is_open) {
        open_orphan(spot, found, orphan);
    }
    const bool is_directory = static_cast<abi::Opcode>(request.header.opcode) == abi::Opcode::rmdir;
    const int error = spot.as_union() != nullptr
                          ? spot.as_union()->remove(spot.name, is_directory)
                          : as_caller(context, request, Groups::where_refused, [&] {
                                return sys::remove_name(spot.fd(), spot.name, is_directory);
                            });
    if (error != 0) {
        return request.failed(error);
    }
    if (nodeid != 0) {
        leased_nodes.nodes().unlinked(found.identity, spot.link());
        leased_nodes.files().drop(nodeid);
        if (orphan) {
            leased_nodes.orphans().put(nodeid, std::move(orphan));
        }
    }
    request.done();
    return true;
}

}  // namespace zc::ops
