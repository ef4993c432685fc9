#include "serve/ops/send_ahead.hpp"

#include <fcntl.h>

#include <array>
#include <mutex>

#include "abi/fuse_store.hpp"
#include "serve/ops/open_lease.hpp"

namespace zc::ops {

namespace {

bool may_send(const State& state, const Request& request, const FileLease& lease) {
    const bool automatic =
        state.mode == Mode::automatic && lease.mode().value_or(Mode::automatic) == Mode::automatic;
    abi::OpenIn open{};
    const bool cached = request.parse(open) && (open.flags & O_DIRECT) == 0;
    return automatic && cached && !lease.passthrough() && !state.coherence &&
           state.config.read_only && lease.reads_promptly();
}

// The bytes if all are in memory.
bool gather(const FileLease& lease, PathCounts& counts, std::span<std::byte> into) {
    std::vector<Slice> slices;
    lease.slices(0, into.size(), slices);
    for (const auto& slice : slices) {
        const std::array<iovec, 1> piece{{{into.data(), slice.size}}};
        const auto n = sys::preadv_nowait(slice.fd, piece, slice.offset);
        counts.calls.add();
        if (n != static_cast<ssize_t>(slice.size)) {
            return false;
        }
        counts.copied_in.add(slice.size);
        into = into.subspan(slice.size);
    }
    return into.empty();
}

bool store(const Channel& channel, std::uint64_t nodeid, std::span<std::byte> bytes) {
    abi::NotifyStore body{nodeid, 0, static_cast<std::uint32_t>(bytes.size()), 0};
    abi::OutHeader header{static_cast<std::uint32_t>(sizeof header + sizeof body + bytes.size()),
                          abi::kNotifyStore, 0};
    const std::array<iovec, 3> pieces{
        {{&header, sizeof header}, {&body, sizeof body}, {bytes.data(), bytes.size()}}};
    return channel.reply(pieces) > 0;
}

}  // namespace

bool send_ahead(Context& context, const Request& request, const FileLease& lease,
                const struct ::statx& version) {
    const auto nodeid = request.header.nodeid;
    if (lease.passthrough() && context.state.coherence) {
        return false;  // the kernel has no pages that a push would have to drop
    }
    const std::lock_guard guard(context.state.first_opens.of(nodeid));
    const bool first = context.leased_nodes().nodes().hold(nodeid, NodeTable::Held::pages);
    if (!first || !may_send(context.state, request, lease)) {
        return false;
    }
    const auto size = size_of(lease, version);
    if (size == 0 || size >= context.state.config.splice_min) {
        return false;
    }
    const auto session = context.state.backings.session();
    auto& counts = context.counts.path(Path::pool);
    context.buffer.resize(size);
    if (!session || !session->device() || !gather(lease, counts, context.buffer) ||
        !store(*session, nodeid, context.buffer)) {
        return false;
    }
    counts.calls.add();
    counts.copied_out.add(size);
    counts.bytes.add(size);
    context.counts.files.read(nodeid, size);
    return true;
}

}  // namespace zc::ops
