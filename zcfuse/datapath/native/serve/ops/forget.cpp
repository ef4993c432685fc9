// FORGET and BATCH_FORGET take lookups back and have no reply. Control hears about the nodes that
// it knows.
#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

// Returns whether control is to hear of it.
bool forget_one(Context& context, const abi::ForgetOne& one) {
    if (!is_own(one.nodeid)) {
        return true;
    }
    auto& leased_nodes = context.leased_nodes();
    const auto forgotten = leased_nodes.nodes().forget(one.nodeid, one.lookups);
    if (forgotten.gone) {
        leased_nodes.forgotten(one.nodeid);
        if (context.state.coherence) {
            context.state.coherence->names().forget(one.nodeid);
        }
    }
    return forgotten.gone && forgotten.described;
}

}  // namespace

bool forget(Context& context, const Request& request) {
    abi::ForgetIn forget{};
    return request.parse(forget) && !forget_one(context, {request.header.nodeid, forget.lookups});
}

bool batch_forget(Context& context, const Request& request) {
    abi::BatchForgetIn batch{};
    if (!request.parse(batch)) {
        return false;
    }
    auto rest = request.body.subspan(sizeof batch);
    auto& message = context.buffer;
    message.resize(sizeof(abi::InHeader) + sizeof batch);
    const std::uint32_t sent = batch.count;
    batch.count = 0;
    for (std::uint32_t i = 0; i < sent && rest.size() >= sizeof(abi::ForgetOne); ++i) {
        abi::ForgetOne one{};
        std::memcpy(&one, rest.data(), sizeof one);
        if (forget_one(context, one)) {
            message.insert(message.end(), rest.begin(), rest.begin() + sizeof one);
            ++batch.count;
        }
        rest = rest.subspan(sizeof one);
    }
    if (batch.count > 0) {
        auto header = request.header;
        header.len = static_cast<std::uint32_t>(message.size());
        std::memcpy(message.data(), &header, sizeof header);
        std::memcpy(message.data() + sizeof header, &batch, sizeof batch);
        context.counts.upcalls[ThreadCounts::slot(header.opcode)].add();
        context.state.upcalls.forward(request.channel, message, Clock::now());
    }
    return true;
}

}  // namespace zc::ops
