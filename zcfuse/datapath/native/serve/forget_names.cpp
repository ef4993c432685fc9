#include "serve/forget_names.hpp"

#include "abi/fuse_nodes.hpp"

namespace zc {

void forget_names(State& state, std::uint64_t nodeid) {
    auto& notifier = state.notifier;
    const auto& nodes = state.leased_nodes.nodes();
    notifier.post_invalidate_inode(nodeid);
    if (state.negotiation.outcome().minor >= abi::kMinorWithIncEpoch) {
        notifier.post_new_epoch();
        return;
    }
    for (const auto& name : nodes.names_in(nodeid)) {
        notifier.post_invalidate_entry(nodeid, name);
    }
    if (const auto node = nodes.find(nodeid); node && !node->is_root) {
        notifier.post_invalidate_entry(node->link.parent, node->link.name);
    }
}

void forget_attributes(const State& state, std::uint64_t nodeid) {
    if (const auto session = state.backings.session()) {
        Notifier::invalidate_inode(*session, nodeid, -1, 0);
    }
}

}  // namespace zc
