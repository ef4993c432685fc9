// OPENDIR and RELEASEDIR.
//
// FOPEN_CACHE_DIR lets the kernel cache a listing; FOPEN_KEEP_CACHE lets it reuse the cached one.
// Reuse has two conditions. The directory's mtime is the one that the last listing saw, and is old
// enough that a later change would show. The last listing is within the cache timeout: a listing
// also carries attributes, and once those have expired, a fresh listing costs less than a LOOKUP of
// each name. For a merged directory the mtimes of all layers count. If a source reports its
// changes, the kernel keeps the listing until a change comes.
#include <algorithm>

#include "serve/mtime.hpp"
#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

using Statuses = std::vector<struct ::statx>;

bool are_settled(const Statuses& statuses) {
    return std::all_of(statuses.begin(), statuses.end(), mtime_is_settled);
}

// For one directory its mtime; for several a number that changes with any of their mtimes.
std::uint64_t mtimes_of(const Statuses& statuses) {
    std::uint64_t mixed = 0;
    for (const auto& status : statuses) {
        mixed = mixed * 0x9E37'79B9'7F4A'7C15 + mtime_of(status);
    }
    return mixed;
}

std::uint32_t caching(Context& context, std::uint64_t nodeid, const Statuses& statuses,
                      Freshness freshness) {
    auto& leased_nodes = context.leased_nodes();
    const auto timeout = static_cast<std::int64_t>(leased_nodes.cache_timeout_ms());
    const bool told =
        freshness != Freshness::timed && freshness != Freshness::names && timeout != 0;
    if (context.state.config.immutable || told) {
        return abi::fopen::cache_dir | abi::fopen::keep_cache;
    }
    if (timeout == 0 || !are_settled(statuses)) {
        leased_nodes.nodes().unchanged(nodeid, 0, 0, false);
        return 0;
    }
    // Time is cut into periods of one timeout. The kernel may reuse a listing within its period.
    const auto period = static_cast<std::uint64_t>(sys::coarse_milliseconds() / timeout);
    const bool same = leased_nodes.nodes().unchanged(nodeid, period, mtimes_of(statuses), true);
    return abi::fopen::cache_dir | (same ? abi::fopen::keep_cache : 0);
}

}  // namespace

bool opendir(Context& context, const Request& request) {
    auto& leased_nodes = context.leased_nodes();
    const auto nodeid = request.header.nodeid;
    auto opened = std::make_shared<OpenDirectory>();
    Statuses statuses;
    auto freshness = Freshness::timed;
    if (const int error = open_listing(context, request.header, *opened, statuses, freshness);
        error != 0) {
        return request.failed(error);
    }
    const auto flags = opened->personal ? 0 : caching(context, nodeid, statuses, freshness);
    const auto handle = leased_nodes.listings().add(std::move(opened));
    if (!request.answer_with(abi::OpenOut{handle, flags, 0})) {
        leased_nodes.listings().take(handle);
    }
    return true;
}

bool releasedir(Context& context, const Request& request) {
    abi::ReleaseIn release{};
    if (!request.parse(release) || !is_own(release.fh)) {
        return false;
    }
    request.done();
    context.leased_nodes().listings().take(release.fh);
    return true;
}

}  // namespace zc::ops
