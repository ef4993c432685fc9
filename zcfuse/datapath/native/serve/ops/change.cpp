#include "serve/ops/change.hpp"

#include <cerrno>

namespace zc::ops {

int find_parent(Context& context, std::uint64_t parent, Spot& into) {
    auto& mirrors = context.mirrors();
    if (const int error = mirrors.directory(parent, context.counts, into.directory); error != 0) {
        return error;
    }
    into.parent = parent;
    const auto kind = into.directory->root->source->kind();
    return kind == Source::Kind::directory && into.fd() >= 0 ? 0 : kHandUp;
}

int find_spot(Context& context, std::uint64_t parent, const char* name, Spot& into) {
    if (name == nullptr || *name == '\0' || std::strchr(name, '/') != nullptr) {
        return -EINVAL;
    }
    if (const int error = find_parent(context, parent, into); error != 0) {
        return error;
    }
    into.name = name;
    return context.mirrors().is_kept(*into.directory->root, parent, name) ? kHandUp : 0;
}

int Held::open(Context& context, std::uint64_t nodeid) {
    auto& mirrors = context.mirrors();
    if (!mirrors.is_plain(nodeid)) {
        return kHandUp;
    }
    auto lease = mirrors.files().in_use(nodeid);
    if (lease && lease->whole_file() != nullptr) {
        lease_ = std::move(lease);
        writer_ = mirrors.files().writer(nodeid);
        return 0;
    }
    struct ::statx status {};
    return mirrors.hold(nodeid, O_PATH, context.counts, own_, status);
}

bool answer_made(Context& context, const Request& request, const Spot& spot) {
    auto& mirrors = context.mirrors();
    Found found;
    if (const int error = mirrors.find(*spot.directory, spot.name, found); error != 0) {
        return request.failed(error == kHandUp ? -EIO : error);
    }
    const bool several = found.status.stx_nlink > 1 && !S_ISDIR(found.status.stx_mode);
    const auto nodeid = mirrors.nodes().count(found.identity, spot.parent, spot.name, several);
    if (!request.answer_with(entry_of(nodeid, found.status, mirrors.validity(Freshness::timed)))) {
        mirrors.nodes().forget(nodeid, 1);
    }
    return true;
}

bool change(Context& context, const Request& request) {
    using abi::Opcode;
    if (context.state.config.read_only) {
        return false;
    }
    switch (static_cast<Opcode>(request.header.opcode)) {
        case Opcode::create:
            return create(context, request);
        case Opcode::tmpfile:
            return tmpfile(context, request);
        case Opcode::mknod:
            return mknod(context, request);
        case Opcode::mkdir:
            return mkdir(context, request);
        case Opcode::symlink:
            return symlink(context, request);
        case Opcode::link:
            return link(context, request);
        case Opcode::unlink:
        case Opcode::rmdir:
            return unlink(context, request);
        case Opcode::rename:
        case Opcode::rename2:
            return rename(context, request);
        case Opcode::setattr:
            return setattr(context, request);
        case Opcode::setxattr:
            return setxattr(context, request);
        case Opcode::removexattr:
            return removexattr(context, request);
        case Opcode::ioctl:
            return ioctl(context, request);
        case Opcode::write:
            return write(context, request);
        case Opcode::fsync:
            return fsync(context, request);
        case Opcode::fsyncdir:
            return fsyncdir(context, request);
        case Opcode::syncfs:
            return syncfs(context, request);
        case Opcode::fallocate:
            return fallocate(context, request);
        case Opcode::copy_file_range:
        case Opcode::copy_file_range_64:
            return copy_file_range(context, request);
        default:
            return false;
    }
}

}  // namespace zc::ops
