#include "serve/ops/change.hpp"

#include <cerrno>

#include "serve/ops/recorded.hpp"

namespace zc::ops {

int find_parent(Context& context, std::uint64_t parent, Spot& into) {
    auto& leased_nodes = context.leased_nodes();
    into.parent = parent;
    return leased_nodes.directory_to_change(parent, context.counts, into.directory);
}

int find_spot(Context& context, std::uint64_t parent, const char* name, Spot& into) {
    if (name == nullptr || *name == '\0' || std::strchr(name, '/') != nullptr) {
        return -EINVAL;
    }
    if (const int error = find_parent(context, parent, into); error != 0) {
        return error;
    }
    into.name = name;
    return context.leased_nodes().is_kept(*into.directory->root, parent, name) ? kUpcall : 0;
}

namespace {

// False: too many are kept, which is counted.
bool keep(Context& context, std::uint64_t nodeid, sys::UniqueFd file) {
    const bool kept = context.leased_nodes().orphans().put(nodeid, std::move(file));
    if (!kept) {
        context.counts.because(Reason::nameless_not_kept);
    }
    return kept;
}

// Opens what a name leads to; `into` stays empty where that fails. A directory that only lower
// layers have would not become empty: it is copied up first.
void open_orphan(const Spot& spot, const Found& found, sys::UniqueFd& into) {
    const auto* merged = spot.as_union();
    struct ::statx status {};
    if (merged != nullptr && S_ISDIR(found.status.stx_mode) && merged->raise(spot.name) != 0) {
        return;
    }
    if (merged != nullptr && !S_ISDIR(found.status.stx_mode)) {
        spot.directory->at->hold(spot.name, spot.directory->within(found.identity), O_PATH, into,
                                 status);
    } else {
        sys::open_beneath(spot.fd(), spot.name, O_PATH, into);
    }
}

}  // namespace

void Orphaned::take(Context& context, const Spot& spot, const Found& found) {
    auto& leased_nodes = context.leased_nodes();
    orphans_ = &leased_nodes.orphans();
    if (found.status.stx_nlink > 1 && !S_ISDIR(found.status.stx_mode)) {
        return;
    }
    auto files = leased_nodes.originals_of(found.identity);
    files.push_back(found.identity);
    for (const auto& one : files) {
        const auto nodeid = leased_nodes.nodes().nodeid_of(one);
        const bool is_open = !is_metacopy(one) && leased_nodes.files().in_use(nodeid);
        if (nodeid == 0 || (is_open && !context.state.has_holder())) {
            continue;
        }
        sys::UniqueFd file;
        open_orphan(spot, found, file);
        if (file && keep(context, nodeid, std::move(file))) {
            nodes_.push_back(nodeid);
        }
    }
}

Orphaned::~Orphaned() {
    for (const auto nodeid : nodes_) {
        orphans_->drop(nodeid);
    }
}

void keep_nameless(Context& context, std::uint64_t nodeid, int file) {
    sys::UniqueFd copy;
    if (context.state.has_holder() && sys::dup_cloexec(file, copy) == 0) {
        keep(context, nodeid, std::move(copy));
    }
}

int Held::open(Context& context, std::uint64_t nodeid, Use use) {
    auto& leased_nodes = context.leased_nodes();
    const auto bytes = use == Use::change ? CopiedBytes::all : CopiedBytes::later;
    const int error = use != Use::look ? leased_nodes.prepare_change(nodeid, context.counts, bytes)
                      : leased_nodes.is_changeable(nodeid) ? 0
                                                           : kUpcall;
    if (error != 0) {
        return error;
    }
    // What is open of a metacopy is the file below it.
    const bool is_elsewhere = leased_nodes.is_copied(nodeid) ||
                              (use != Use::look && leased_nodes.is_metacopy_node(nodeid));
    auto lease = is_elsewhere ? nullptr : leased_nodes.files().in_use(nodeid);
    if (lease && lease->whole_file() != nullptr) {
        lease_ = std::move(lease);
        writer_ = leased_nodes.files().writer(nodeid);
        return 0;
    }
    struct ::statx status {};
    return leased_nodes.hold(nodeid, O_PATH, context.counts, own_, status);
}

bool answer_made(Context& context, const Request& request, const Spot& spot, std::uint64_t linked) {
    auto& leased_nodes = context.leased_nodes();
    Found found;
    if (const int error = leased_nodes.find(*spot.directory, spot.name, found); error != 0) {
        return request.failed(error == kUpcall ? -EIO : error);
    }
    const bool several = found.status.stx_nlink > 1 && !S_ISDIR(found.status.stx_mode);
    const auto identity = leased_nodes.known_as(linked, found.identity);
    const auto nodeid = leased_nodes.nodes().count(identity, spot.parent, spot.name, several);
    if (!request.answer_with(
            entry_of(nodeid, found.status, leased_nodes.validity(Freshness::timed)))) {
        leased_nodes.nodes().forget(nodeid, 1);
    }
    return true;
}

namespace {

bool make_change(Context& context, const Request& request) {
    using abi::Opcode;
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

}  // namespace

bool change(Context& context, const Request& request) {
    if (context.state.config.read_only) {
        return false;
    }
    const bool answered = make_change(context, request);
    end_record(context, request);
    return answered;
}

}  // namespace zc::ops
