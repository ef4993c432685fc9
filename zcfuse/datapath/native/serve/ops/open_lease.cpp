#include "serve/ops/open_lease.hpp"

#include <tuple>
#include <utility>

namespace zc::ops {

NewLease::NewLease(Context& context, std::vector<Extent> extents)
    : extents_(std::move(extents)), reason_(kMadeOfExtents) {
    if (is_whole_file(extents_)) {
        std::tie(backing_, reason_) = context.state.backings.add(extents_.front().file->get());
        better_later_ = !reason_.empty();
    }
}

OpenFiles::Lease NewLease::install(Context& context, std::uint64_t nodeid, OpenFiles::Keep keep) {
    auto& state = context.state;
    auto made =
        std::make_shared<const FileLease>(std::move(extents_), std::move(backing_), state.windows);
    auto lease = state.mirrors.files().open_with(nodeid, std::move(made),
                                                 better_later_ ? OpenFiles::Keep::no : keep);
    state.ledger.opened(lease->passthrough() ? "passthrough" : "cached", reason_);
    return lease;
}

}  // namespace zc::ops
