#include "serve/ops/recorded.hpp"

#include <algorithm>
#include <cerrno>

namespace zc::ops {

namespace {

std::uint64_t number_of(const Request& request) noexcept {
    return request.header.unique & ~abi::kResendBit;
}

}  // namespace

std::optional<ChangeMemory::Change> recorded(const Context& context, const Request& request) {
    if ((request.header.unique & abi::kResendBit) == 0) {
        return std::nullopt;
    }
    return context.state.surviving->changes().inherited(number_of(request));
}

void record(Context& context, const Request& request, const ChangeMemory::Place& from,
            const ChangeMemory::Place& to, unsigned flags) {
    if (context.state.has_holder()) {
        context.state.surviving->changes().begin(
            {number_of(request), request.header.opcode, flags, from, to});
        context.recorded = true;
    }
}

bool was_made(Context& context, const Request& request, const Spot& spot, std::uint32_t type,
              std::uint64_t linked) {
    if (!context.state.has_holder()) {
        return false;
    }
    Found found;
    const int error = context.leased_nodes().find(*spot.directory, spot.name, found);
    if (error == -ENOENT) {
        record(context, request, {spot.parent, spot.name, {}});
        return false;
    }
    if (error != 0 || (found.status.stx_mode & S_IFMT) != type || !recorded(context, request)) {
        return false;
    }
    auto& leased_nodes = context.leased_nodes();
    const auto node = leased_nodes.nodes().find(linked);
    return linked == 0 || (node && leased_nodes.known_as(linked, found.identity) == node->identity);
}

bool is_still(const Context& context, const Identity& found, const Identity& recorded) {
    if (found == recorded) {
        return true;
    }
    const auto originals = context.state.leased_nodes.originals_of(found);
    return std::ranges::find(originals, recorded) != originals.end();
}

void end_record(Context& context, const Request& request) {
    if (context.recorded || (request.header.unique & abi::kResendBit) != 0) {
        context.state.surviving->changes().end(number_of(request));
        context.recorded = false;
    }
}

void finish_renames(Context& context) {
    for (const auto& change : context.state.surviving->changes().inherited()) {
        Spot from;
        Spot to;
        if (change.to.name[0] == '\0' ||
            find_spot(context, change.from.parent, change.from.name.data(), from) != 0 ||
            find_spot(context, change.to.parent, change.to.name.data(), to) != 0) {
            continue;
        }
        if (was_renamed(context, change, from, to)) {
            note_renamed(context, change, from, to);
        }
    }
}

}  // namespace zc::ops
