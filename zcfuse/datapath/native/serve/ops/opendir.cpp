// OPENDIR and RELEASEDIR.
//
// The kernel may cache a listing (FOPEN_CACHE_DIR), and reuse the one that it has
// (FOPEN_KEEP_CACHE) only where both hold: the directory's mtime is the one that the last listing
// saw and is no longer young, so that every change since would show; and the last listing that it
// was given is within the cache timeout. A listing brings attributes along: once those have
// expired, a fresh one costs less than a LOOKUP of each name.
#include "serve/ops/mtime.hpp"
#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

std::uint32_t caching(Context& context, std::uint64_t nodeid, const struct ::statx& status) {
    auto& mirrors = context.mirrors();
    if (context.state.config.immutable) {
        return abi::fopen::cache_dir | abi::fopen::keep_cache;
    }
    const auto timeout = static_cast<std::int64_t>(mirrors.cache_timeout_ms());
    if (timeout == 0 || !mtime_is_settled(status)) {
        mirrors.nodes().unchanged(nodeid, 0, 0, false);
        return 0;
    }
    // A period: within one, the listing that began it is as good as a new one.
    const auto period = static_cast<std::uint64_t>(sys::coarse_milliseconds() / timeout);
    const bool same = mirrors.nodes().unchanged(nodeid, period, mtime_of(status), true);
    return abi::fopen::cache_dir | (same ? abi::fopen::keep_cache : 0);
}

}  // namespace

int open_for_listing(Context& context, std::uint64_t nodeid, sys::UniqueFd& into,
                     struct ::statx& status) {
    auto& mirrors = context.mirrors();
    constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NONBLOCK;
    const int error = mirrors.open(nodeid, kFlags, context.counts, into, status);
    if (error != -EMFILE && error != -ENFILE) {
        return error;
    }
    mirrors.give_back_descriptors();
    return mirrors.open(nodeid, kFlags, context.counts, into, status);
}

bool opendir(Context& context, const Request& request) {
    auto& mirrors = context.mirrors();
    const auto nodeid = request.header.nodeid;
    sys::UniqueFd fd;
    struct ::statx status {};
    if (const int error = open_for_listing(context, nodeid, fd, status); error != 0) {
        return request.failed(error);
    }
    const auto handle = mirrors.listings().add(std::move(fd));
    if (!request.answer_with(abi::OpenOut{handle, caching(context, nodeid, status), 0})) {
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
