// LOOKUP: one statx of the name in the directory's descriptor, in a union one a layer at most. A
// missing name is a reply too, which the kernel may cache.
#include <cerrno>

#include "serve/sources/layer_marks.hpp"
#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

bool answer_missing(Context& context, const Request& request) {
    abi::EntryOut entry{};
    const auto validity = context.mirrors().validity();
    entry.entry_valid = validity.seconds;
    entry.entry_valid_nsec = validity.nanoseconds;
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
    if (directory->root->merged && is_reserved(text)) {
        return answer_missing(context, request);
    }
    Mirrors::Found found;
    if (const int error = mirrors.find(*directory, name, found); error != 0) {
        return error == -ENOENT ? answer_missing(context, request) : request.failed(error);
    }
    auto& nodes = mirrors.nodes();
    if (nodes.any_revoked() && nodes.is_revoked(found.identity)) {
        return false;
    }
    const auto& status = found.status;
    const auto nodeid = nodes.count(found.identity, request.header.nodeid, text,
                                    status.stx_nlink > 1 && !S_ISDIR(status.stx_mode));
    if (!request.answer_with(entry_of(nodeid, status, mirrors.validity()))) {
        nodes.forget(nodeid, 1);  // the kernel has not heard of it
    }
    return true;
}

}  // namespace zc::ops
