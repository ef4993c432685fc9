// On an immutable mount, and where changes are pushed and files are small, files open without a
// message: after ENOSYS to OPEN and OPENDIR, the kernel sends neither again on the whole connection
// (fs/fuse/file.c, fuse_file_open). READ, READDIRPLUS and LSEEK then have the handle 0, and the
// nodeid names the file.
//
// So the data path answers ENOSYS only if the whole tree is leased. A tree whose answers depend on
// the client must not lease, because the kernel caches them for all clients. Some requests still go
// up (behind another mount, revoked, held by another process's lease). Their handle stands for the
// node, and control opens it when the request comes.
//
// On an immutable mount, a file that one READ covers is opened for that READ and closed. Every
// other file stays open for a while; the longest unused one is closed first. Where changes are
// pushed, a file may lose its name between two READs of a client: it must stay open for the second
// one.
#include <cerrno>

#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

// A position in a listing of several layers is one of that listing alone, and OPENDIR tells whose
// listing a later READDIR goes on with. Where nothing changes, any listing will do.
bool lists_at_open(const State& state, abi::Opcode opcode) {
    const auto root =
        opcode == abi::Opcode::opendir ? state.leased_nodes.root_of(abi::kRootId) : nullptr;
    return !state.config.immutable && root != nullptr &&
           root->source->kind() == Source::Kind::overlay;
}

bool may_open_without(const Context& context) {
    if (!context.state.negotiation.outcome().zero_message_opens()) {
        context.counts.because(Reason::opens_not_offered);
        return false;
    }
    const auto root = context.leased_nodes().root_of(abi::kRootId);
    if (root == nullptr || !root->source->is_complete() || !root->kept.empty() ||
        context.leased_nodes().leased(abi::kRootId) != 0) {
        context.counts.because(Reason::opens_not_leased);
        return false;
    }
    return true;
}

}  // namespace

bool tree_allows_silent_opens(const State& state) {
    return state.config.immutable || state.leased_nodes.is_pushed(abi::kRootId);
}

bool answer_needless(Context& context, const Request& request) {
    const auto opcode = static_cast<abi::Opcode>(request.header.opcode);
    // A tree that is not changed answers no IOCTL. Python's open() sends one for each file, to see
    // whether it is a terminal.
    if (opcode == abi::Opcode::ioctl && context.state.config.read_only) {
        return request.failed(-ENOTTY);
    }
    // A file that was opened without a message has no FOPEN_NOFLUSH either.
    const bool is_open = opcode == abi::Opcode::open || opcode == abi::Opcode::opendir ||
                         opcode == abi::Opcode::flush;
    // POLL as well: the kernel then says itself, of every file of the mount, that it is ready. It
    // asks often: io_uring sends one before each read.
    const auto& state = context.state;
    const bool is_silent =
        is_open && state.negotiation.silent_opens() && !lists_at_open(state, opcode);
    if (is_open && state.mode == Mode::automatic && state.config.options_allow_silent_opens() &&
        !state.config.silent_opens && !state.leased_nodes.is_strict(abi::kRootId)) {
        context.counts.because(Reason::opens_large_files);
    }
    if (opcode != abi::Opcode::poll && (!is_silent || !may_open_without(context))) {
        return false;
    }
    request.channel->reply_error(request.header.unique, -ENOSYS);
    return true;
}

int implicit_lease(Context& context, std::uint64_t nodeid, const abi::ReadIn* read,
                   OpenFiles::Lease& into) {
    auto& state = context.state;
    if (!state.negotiation.silent_opens() || !is_own(nodeid) ||
        (read != nullptr && read->fh != 0)) {
        return kUpcall;
    }
    state.leased_nodes.hold(nodeid, NodeTable::Held::pages);
    Opened opened;
    auto freshness = Freshness::timed;
    if (const int error = state.leased_nodes.open(nodeid, context.counts, opened, freshness);
        error != 0) {
        return error;
    }
    if (opened.mode == Mode::upcall) {
        return kUpcall;
    }
    into = std::make_shared<const FileLease>(std::move(opened.extents), nullptr, state.windows,
                                             opened.mode, opened.shown);
    state.ledger.opened("implicit", {});
    const bool covers_all =
        read != nullptr && read->offset == 0 && read->size >= opened.status.stx_size;
    if (!covers_all || !state.config.immutable) {
        into = state.leased_nodes.files().keep(nodeid, std::move(into), sys::coarse_milliseconds());
    }
    return 0;
}

std::span<const std::byte> with_handle(Context& context, std::span<const std::byte> message) {
    abi::InHeader header{};
    std::memcpy(&header, message.data(), sizeof header);
    const auto opcode = static_cast<abi::Opcode>(header.opcode);
    const bool by_handle = opcode == abi::Opcode::read || opcode == abi::Opcode::readdir ||
                           opcode == abi::Opcode::readdirplus;
    if (!context.state.negotiation.silent_opens() || !by_handle ||
        message.size() < sizeof header + sizeof(abi::ReadIn)) {
        return message;
    }
    std::uint64_t handle = 0;
    std::memcpy(&handle, message.data() + sizeof header, sizeof handle);
    if (handle != 0) {
        return message;
    }
    handle = kImplicitBit | header.nodeid;
    context.buffer.assign(message.begin(), message.end());
    std::memcpy(context.buffer.data() + sizeof header, &handle, sizeof handle);
    return context.buffer;
}

}  // namespace zc::ops
