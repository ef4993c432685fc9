// LOOKUP: one statx of the name in the directory's descriptor. A missing name is a reply too, which
// the kernel may cache.
#include <cerrno>

#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

bool answer_missing(Context& context, const Request& request) {
    abi::EntryOut entry{};
    const auto timeout = context.mirrors().cache_timeout_ms();
    entry.entry_valid = timeout / 1000;
    entry.entry_valid_nsec = timeout % 1000 * 1'000'000;
    request.answer_with(entry);
    return true;
}

}  // namespace

bool lookup(Context& context, const Request& request) {
    auto& mirrors = context.mirrors();
    const char* name = request.name();
    if (name == nullptr || *name == '\0' || std::strchr(name, '/') != nullptr) {
        return false;
    }
    const std::string_view text(name);
    if (text == "." || text == "..") {
        return false;  // never asked: EXPORT_SUPPORT is off
    }
    std::shared_ptr<const Directory> directory;
    if (const int error = mirrors.directory(request.header.nodeid, context.counts, directory);
        error != 0) {
        return request.failed(error);
    }
    if (mirrors.is_kept(*directory->root, request.header.nodeid, text)) {
        return false;
    }
    struct ::statx status {};
    if (const int error = mirrors.look(*directory, name, status); error != 0) {
        return error == -ENOENT ? answer_missing(context, request) : request.failed(error);
    }
    const auto identity = mirrors.identity_of(*directory->root, status, directory->fd(), name);
    auto& nodes = mirrors.nodes();
    if (nodes.any_revoked() && nodes.is_revoked(identity)) {
        return false;
    }
    const auto nodeid = nodes.count(identity, request.header.nodeid, text,
                                    status.stx_nlink > 1 && !S_ISDIR(status.stx_mode));
    if (!request.answer_with(entry_of(nodeid, status, mirrors.cache_timeout_ms()))) {
        nodes.forget(nodeid, 1);  // the kernel has not heard of it
    }
    return true;
}

}  // namespace zc::ops
