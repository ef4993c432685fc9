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
    auto& leased_nodes = context.leased_nodes();
    const char* name = request.name();
    if (name == nullptr || *name == '\0' || std::strchr(name, '/') != nullptr) {
        return false;
    }
    const std::string_view text(name);
    if (text == "." || text == "..") {
        return false;  // never asked: EXPORT_SUPPORT is off
    }
    std::shared_ptr<const Directory> directory;
    if (const int error = leased_nodes.directory_for(request.header.nodeid, request.header.uid,
                                                     context.counts, directory);
        error != 0) {
        return request.failed(error);
    }
    if (leased_nodes.is_kept(*directory->root, request.header.nodeid, text)) {
        return false;
    }
    const bool watched = watches_names(context, directory);
    const auto freshness = watched ? Freshness::pushed : directory->root->source->freshness();
    const auto validity = directory->personal ? Validity{} : leased_nodes.validity(freshness);
    Found found;
    abi::EntryOut entry{};
    const auto find = [&](Found& into) { return leased_nodes.find(*directory, name, into); };
    if (const int error = count_lookup(context, *directory, text, watched, find, found, entry);
        error != 0) {
        return error == -ENOENT ? answer_missing(request, validity) : request.failed(error);
    }
    directory.reset();  // whoever ends the lease behind the reply finds no descriptor of it open
    if (!request.answer_with(entry)) {
        leased_nodes.nodes().forget(entry.nodeid, 1);  // the kernel has not heard of it
    }
    return true;
}

}  // namespace zc::ops
