#include "serve/ops/open_lease.hpp"

#include <cerrno>
#include <tuple>
#include <utility>

namespace zc::ops {

int refuse_open(Context& context, const Request& request, std::uint64_t nodeid, bool keeps_more) {
    const auto uid = request.header.uid;
    if (!context.mirrors().files().admits(uid, nodeid)) {
        context.counts.because(Reason::files_refused);
        return -EMFILE;
    }
    if (keeps_more && !context.mirrors().spares_another(uid)) {
        context.counts.because(Reason::reserve_refused);
        return -EMFILE;
    }
    return 0;
}

NewLease::NewLease(Context& context, Opened opened)
    : opened_(std::move(opened)), cause_{Reason::passthrough_extents} {
    const auto mode = opened_.mode.value_or(Mode::automatic);
    const auto& extents = opened_.extents;
    if (!is_whole_file(extents)) {
        better_later_ = !opened_.keeps;
    } else if (mode != Mode::automatic && mode != Mode::passthrough) {
        cause_ = {};
    } else {
        std::tie(backing_, cause_) = context.state.backings.add(extents.front().file->get());
        better_later_ = static_cast<bool>(cause_);
    }
}

OpenFiles::Lease NewLease::install(Context& context, std::uint64_t nodeid, OpenFiles::Keep keep,
                                   std::uint32_t uid) {
    auto& state = context.state;
    auto made =
        std::make_shared<const FileLease>(std::move(opened_.extents), std::move(backing_),
                                          state.windows, opened_.mode, std::move(opened_.shown));
    auto lease = state.mirrors.files().open_with(nodeid, std::move(made),
                                                 better_later_ ? OpenFiles::Keep::no : keep, uid);
    state.ledger.opened(lease->passthrough() ? "passthrough" : "cached", cause_);
    return lease;
}

}  // namespace zc::ops
