// OPENDIR and RELEASEDIR.
//
// The kernel may cache a listing (FOPEN_CACHE_DIR), and reuse the one that it has
// (FOPEN_KEEP_CACHE) only where both hold: the directory's mtime is the one that the last listing
// saw and is no longer young, so that every change since would show; and the last listing that it
// was given is within the cache timeout. A listing brings attributes along: once those have
// expired, a fresh one costs less than a LOOKUP of each name. Of a merged directory the mtimes of
// all layers count. If a source reports its changes, the kernel keeps the listing until one.
#include <algorithm>

#include "serve/ops/mtime.hpp"
#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

using Statuses = std::vector<struct ::statx>;

bool are_settled(const Statuses& statuses) {
    return std::all_of(statuses.begin(), statuses.end(), mtime_is_settled);
}

// Of one directory its mtime; of several a number that changes when any of their mtimes does.
std::uint64_t mtimes_of(const Statuses& statuses) {
    std::uint64_t mixed = 0;
    for (const auto& status : statuses) {
        mixed = mixed * 0x9E37'79B9'7F4A'7C15 + mtime_of(status);
    }
    return mixed;
}

// A push drops the listing that the kernel has, but not a reply on its way to it; that one shows
// its age by the directory's mtime. A merged directory has the mtime of its topmost part only.
bool is_merged(const Mirrors& mirrors, std::uint64_t nodeid) {
    const auto root = mirrors.root_above(nodeid);
    return root != nullptr && root->source->kind() == Source::Kind::overlay;
}

std::uint32_t caching(Context& context, std::uint64_t nodeid, const Statuses& statuses,
                      Freshness freshness) {
    auto& mirrors = context.mirrors();
    const auto timeout = static_cast<std::int64_t>(mirrors.cache_timeout_ms());
    if (freshness == Freshness::pushed && is_merged(mirrors, nodeid)) {
        return 0;
    }
    const bool told = freshness != Freshness::timed && timeout != 0;
    if (context.state.config.immutable || told) {
        return abi::fopen::cache_dir | abi::fopen::keep_cache;
    }
    if (timeout == 0 || !are_settled(statuses)) {
        mirrors.nodes().unchanged(nodeid, 0, 0, false);
        return 0;
    }
    // A period: within one, the listing that began it is as good as a new one.
    const auto period = static_cast<std::uint64_t>(sys::coarse_milliseconds() / timeout);
    const bool same = mirrors.nodes().unchanged(nodeid, period, mtimes_of(statuses), true);
    return abi::fopen::cache_dir | (same ? abi::fopen::keep_cache : 0);
}

}  // namespace

bool opendir(Context& context, const Request& request) {
    auto& mirrors = context.mirrors();
    const auto nodeid = request.header.nodeid;
    auto opened = std::make_shared<OpenDirectory>();
    Statuses statuses;
    auto freshness = Freshness::timed;
    if (const int error = mirrors.list(nodeid, context.counts, *opened, statuses, freshness);
        error != 0) {
        return request.failed(error);
    }
    const auto handle = mirrors.listings().add(std::move(opened));
    const auto flags = caching(context, nodeid, statuses, freshness);
    if (!request.answer_with(abi::OpenOut{handle, flags, 0})) {
        mirrors.listings().take(handle);
    }
    return true;
}

bool releasedir(Context& context, const Request& request) {
    abi::ReleaseIn release{};
    if (!request.parse(release) || !is_own(release.fh)) {
        return false;
    }
    request.done();
    context.mirrors().listings().take(release.fh);
    return true;
}

}  // namespace zc::ops
