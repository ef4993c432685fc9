// LOOKUP: a name in an open directory. A missing name is a reply too, which the kernel may cache.
#include <cerrno>

#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

bool answer_missing(const Request& request, Validity validity) {
    abi::EntryOut entry{};
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
    const auto validity = mirrors.validity(directory->root->source->freshness());
    Found found;
    if (const int error = mirrors.find(*directory, name, found); error != 0) {
        return error == -ENOENT ? answer_missing(request, validity) : request.failed(error);
    }
    auto& nodes = mirrors.nodes();
    if (nodes.any_revoked() && nodes.is_revoked(found.identity)) {
        return false;
    }
    const auto& status = found.status;
    const auto nodeid = nodes.count(found.identity, request.header.nodeid, text,
                                    status.stx_nlink > 1 && !S_ISDIR(status.stx_mode));
    if (!request.answer_with(entry_of(nodeid, status, validity))) {
        nodes.forget(nodeid, 1);  // the kernel has not heard of it
    }
    return true;
}

}  // namespace zc::ops
