// SETXATTR and REMOVEXATTR, POSIX ACLs included: the backing filesystem derives the mode of an ACL
// itself, and clears set-group-id for a client that is not in the group.
#include <sys/xattr.h>

#include <cerrno>
#include <string>

#include "serve/ops/recorded.hpp"
#include "serve/sources/layer_marks.hpp"

namespace zc::ops {

namespace {

// A client's attribute must not be a mark of the upper layer.
std::string backing_name(Context& context, const Request& request, const char* name) {
    return context.leased_nodes().is_in_union(request.header.nodeid) ? backing_xattr(name) : name;
}

bool has_xattr(int file, const std::string& name) noexcept {
    return sys::get_xattr(file, name.c_str(), nullptr, 0) >= 0;
}

}  // namespace

bool setxattr(Context& context, const Request& request) {
    abi::SetxattrIn wanted{};
    if (!request.parse(wanted) || request.body.size() <= sizeof wanted + wanted.size) {
        return request.failed(-EINVAL);
    }
    const auto value = request.body.last(wanted.size);
    const auto named = request.body.subspan(sizeof wanted)
                           .first(request.body.size() - sizeof wanted - wanted.size);
    if (named.back() != std::byte{0}) {
        return request.failed(-EINVAL);
    }
    const auto* name = reinterpret_cast<const char*>(named.data());
    Held file;
    int error = file.open(context, request.header.nodeid, Held::Use::attributes);
    if (error == 0) {
        const auto backing = backing_name(context, request, name);
        const bool was_set = recorded(context, request).has_value();
        if ((wanted.flags & XATTR_CREATE) != 0 && !has_xattr(file.get(), backing)) {
            record(context, request);
        }
        error = as_caller(context, request, Groups::at_once, [&] {
            return sys::set_xattr(file.get(), backing.c_str(), value,
                                  static_cast<int>(wanted.flags));
        });
        error = error == -EEXIST && was_set ? 0 : error;
    }
    return error == 0 ? request.done() || true : request.failed(error);
}

bool removexattr(Context& context, const Request& request) {
    const char* name = request.name();
    if (name == nullptr) {
        return request.failed(-EINVAL);
    }
    auto& leased_nodes = context.leased_nodes();
    Held file;
    int error = 0;
    if (leased_nodes.is_in_union(request.header.nodeid)) {
        // What has no such attribute is not copied up.
        error = leased_nodes.get_xattr(request.header.nodeid, context.counts, name, context.buffer);
        error = error == -ENODATA && recorded(context, request) ? 0 : error;
    }
    error = error == 0 ? file.open(context, request.header.nodeid, Held::Use::attributes) : error;
    if (error == 0) {
        const auto backing = backing_name(context, request, name);
        const bool was_removed = recorded(context, request).has_value();
        if (has_xattr(file.get(), backing)) {
            record(context, request);
        }
        error = as_caller(context, request, Groups::where_refused,
                          [&] { return sys::remove_xattr(file.get(), backing.c_str()); });
        error = error == -ENODATA && was_removed ? 0 : error;
    }
    return error == 0 ? request.done() || true : request.failed(error);
}

}  // namespace zc::ops
