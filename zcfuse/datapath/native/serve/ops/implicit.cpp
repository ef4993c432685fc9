// On an immutable mount, files open without a message: after ENOSYS to OPEN and OPENDIR, the kernel
// sends neither again on the whole connection (fs/fuse/file.c, fuse_file_open). READ, READDIRPLUS
// and LSEEK then have the handle 0, and the nodeid names the file.
//
// So the data path answers ENOSYS only if the whole tree is leased. A tree whose answers depend on
// the client must not lease, because the kernel caches them for all clients. Some requests still go
// up (behind another mount, revoked, held by another process's lease). Their handle stands for the
// node, and control opens it when the request comes.
//
// A file that one READ covers is opened for that READ and closed. A larger file stays open; the
// longest unused one is closed first.
#include <cerrno>

#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

bool may_open_without(const Context& context) {
    if (!context.state.negotiation.outcome().zero_message_opens()) {
        context.counts.because(Reason::opens_not_offered);
        return false;
    }
    const auto root = context.mirrors().root_of(abi::kRootId);
    if (root == nullptr || !root->source->is_complete() || !root->kept.empty() ||
        context.mirrors().leased(abi::kRootId) != 0) {
        context.counts.because(Reason::opens_not_leased);
        return false;
    }
    return true;
}

}  // namespace

bool unasked(Context& context, const Request& request) {
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
    if (opcode != abi::Opcode::poll &&
        (!context.state.config.immutable || !is_open || !may_open_without(context))) {
        return false;
    }
    request.channel->reply_error(request.header.unique, -ENOSYS);
    return true;
}

int implicit_lease(Context& context, std::uint64_t nodeid, const abi::ReadIn* read,
                   OpenFiles::Lease& into) {
    if (!context.state.config.immutable || !is_own(nodeid) || (read != nullptr && read->fh != 0)) {
        return kHandUp;
    }
    Opened opened;
    auto freshness = Freshness::timed;
    auto& state = context.state;
    if (const int error = state.mirrors.open(nodeid, context.counts, opened, freshness);
        error != 0) {
        return error;
    }
    if (opened.mode == Mode::upcall) {
        return kHandUp;
    }
    into = std::make_shared<const FileLease>(std::move(opened.extents), nullptr, state.windows,
                                             opened.mode, opened.shown);
    state.ledger.opened("implicit", {});
    if (read == nullptr || read->offset != 0 || read->size < opened.status.stx_size) {
        into = state.mirrors.files().keep(nodeid, std::move(into), sys::coarse_milliseconds());
    }
    return 0;
}

std::span<const std::byte> with_handle(Context& context, std::span<const std::byte> message) {
    abi::InHeader header{};
    std::memcpy(&header, message.data(), sizeof header);
    const auto opcode = static_cast<abi::Opcode>(header.opcode);
    const bool by_handle = opcode == abi::Opcode::read || opcode == abi::Opcode::readdir ||
                           opcode == abi::Opcode::readdirplus;
    if (!context.state.config.immutable || !by_handle ||
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
