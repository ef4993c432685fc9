// SETATTR in all its forms: size, owner, mode, times, in this order, because a change of owner
// clears set-id bits that a mode in the same request has taken into account.
//
// A size is set by the descriptor that is open for writing, where there is one: an open file can be
// truncated whatever its mode says now.
#include <sys/stat.h>

#include <cerrno>

#include "serve/ops/change.hpp"

namespace zc::ops {

namespace {

using abi::SetattrIn;

struct ::timespec time_of(bool wanted, bool now, std::uint64_t seconds, std::uint32_t nanoseconds) {
    if (!wanted) {
        return {0, UTIME_OMIT};
    }
    return now ? timespec{0, UTIME_NOW}
               : timespec{static_cast<time_t>(seconds), static_cast<long>(nanoseconds)};
}

int apply_size(const Held& file, const SetattrIn& wanted) {
    return file.writer() ? sys::set_size_of_open(file.writer()->get(), wanted.size)
                         : sys::set_size(file.get(), wanted.size);
}

int apply_owner(const Held& file, const SetattrIn& wanted) {
    constexpr auto kUnchanged = static_cast<std::uint32_t>(-1);
    return sys::set_owner(file.get(),
                          (wanted.valid & abi::fattr::uid) != 0 ? wanted.uid : kUnchanged,
                          (wanted.valid & abi::fattr::gid) != 0 ? wanted.gid : kUnchanged);
}

int apply_times(const Held& file, const SetattrIn& wanted) {
    using namespace abi;
    // A truncation has set the time of modification already.
    const bool by_size =
        (wanted.valid & fattr::size) != 0 && (wanted.valid & fattr::mtime_now) != 0;
    const bool mtime = (wanted.valid & fattr::mtime) != 0 && !by_size;
    return sys::set_times(
        file.get(),
        {time_of((wanted.valid & fattr::atime) != 0, (wanted.valid & fattr::atime_now) != 0,
                 wanted.atime, wanted.atimensec),
         time_of(mtime, (wanted.valid & fattr::mtime_now) != 0, wanted.mtime, wanted.mtimensec)});
}

int apply(const Held& file, const SetattrIn& wanted) {
    using namespace abi;
    int error = 0;
    if ((wanted.valid & fattr::size) != 0) {
        error = apply_size(file, wanted);
    }
    if (error == 0 && (wanted.valid & (fattr::uid | fattr::gid)) != 0) {
        error = apply_owner(file, wanted);
    }
    if (error == 0 && (wanted.valid & fattr::mode) != 0) {
        error = sys::set_mode(file.get(), wanted.mode);
    }
    if (error == 0 && (wanted.valid & (fattr::atime | fattr::mtime)) != 0) {
        error = apply_times(file, wanted);
    }
    return error;
}

// The kernel wants set-id bits cleared: for chown(-1, -1), or before somebody else's write. The
// daemon does that, because the file need not be the client's.
bool sets_nothing(const SetattrIn& wanted) noexcept {
    using namespace abi;
    constexpr auto kSets =
        fattr::size | fattr::uid | fattr::gid | fattr::mode | fattr::atime | fattr::mtime;
    return (wanted.valid & kSets) == 0;
}

// Where membership in a group decides about set-group-id, or about what the group may become.
Groups groups_of(const SetattrIn& wanted) noexcept {
    using namespace abi;
    const bool depends = (wanted.valid & (fattr::size | fattr::gid)) != 0 ||
                         ((wanted.valid & fattr::mode) != 0 && (wanted.mode & S_ISGID) != 0);
    return depends ? Groups::at_once : Groups::where_refused;
}

}  // namespace

bool setattr(Context& context, const Request& request) {
    const auto nodeid = request.header.nodeid;
    SetattrIn wanted{};
    Held file;
    if (!request.parse(wanted)) {
        return false;
    }
    const bool sizes = (wanted.valid & abi::fattr::size) != 0;
    const bool truncates = sizes && (wanted.valid & abi::fattr::fh) == 0;
    int error = truncates ? context.leased_nodes().refused_write(nodeid) : 0;
    const auto use = sizes ? Held::Use::change : Held::Use::attributes;
    error = error == 0 ? file.open(context, nodeid, use) : error;
    if (error == 0) {
        error = sets_nothing(wanted) ? apply_owner(file, wanted)
                                     : as_caller(context, request, groups_of(wanted),
                                                 [&] { return apply(file, wanted); });
    }
    struct ::statx status {};
    auto& leased_nodes = context.leased_nodes();
    Validity validity;
    if (error == 0) {
        error = leased_nodes.is_in_union(nodeid)
                    ? leased_nodes.status(nodeid, context.counts, status, validity)
                    : sys::status_of(file.get(), "", false, status);
    }
    if (error != 0) {
        return request.failed(error);
    }
    validity = leased_nodes.files().is_written(nodeid) ? Validity{}
                                                       : leased_nodes.validity(Freshness::timed);
    request.answer_with(
        abi::AttrOut{validity.seconds, validity.nanoseconds, 0, attributes_of(status)});
    return true;
}

}  // namespace zc::ops
