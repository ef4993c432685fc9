// GETXATTR and LISTXATTR, of the very file: opened and compared first. The marks of overlayfs in
// the layers of a union are none of the file's.
//
// The kernel fetches ACLs itself (FUSE_POSIX_ACL) and takes any errno but ENODATA for a refusal of
// access (fs/fuse/acl.c), so a backing filesystem without ACLs has none on its files; once it has
// said so, it is not asked again.
#include <algorithm>
#include <cerrno>

#include "serve/sources/layer_marks.hpp"
#include "serve/ops/operation.hpp"
#include "sys/processes.hpp"

namespace zc::ops {

namespace {

constexpr std::size_t kLargest = 64 << 10;  // XATTR_SIZE_MAX and XATTR_LIST_MAX
constexpr std::string_view kTrusted = "trusted.";

bool is_acl(std::string_view name) noexcept {
    return name == "system.posix_acl_access" || name == "system.posix_acl_default";
}

bool answer_sized(const Request& request, std::span<const std::byte> value, std::size_t wanted) {
    if (wanted == 0) {
        request.answer_with(abi::GetxattrOut{static_cast<std::uint32_t>(value.size()), 0});
    } else if (value.size() > wanted) {
        request.fail(-ERANGE);
    } else {
        request.answer(value);
    }
    return true;
}

bool is_trusted(std::string_view name) noexcept {
    return name.starts_with(kTrusted);
}

bool has_trusted(std::span<const std::byte> names) noexcept {
    for (std::size_t at = 0; at < names.size();) {
        const std::string_view name(reinterpret_cast<const char*>(names.data() + at));
        if (is_trusted(name)) {
            return true;
        }
        at += name.size() + 1;
    }
    return false;
}

std::size_t without_trusted(std::span<std::byte> names) {
    std::size_t kept = 0;
    for (std::size_t at = 0; at < names.size();) {
        const std::string_view name(reinterpret_cast<const char*>(names.data() + at));
        const auto size = name.size() + 1;
        if (!is_trusted(name)) {
            std::memmove(names.data() + kept, names.data() + at, size);
            kept += size;
        }
        at += size;
    }
    return kept;
}

int open_path(Context& context, std::uint64_t nodeid, sys::UniqueFd& into) {
    struct ::statx status {};
    auto& mirrors = context.mirrors();
    const int error = mirrors.open(nodeid, O_PATH, context.counts, into, status);
    if (error != -EMFILE && error != -ENFILE) {
        return error;
    }
    mirrors.give_back_descriptors();
    return mirrors.open(nodeid, O_PATH, context.counts, into, status);
}

}  // namespace

bool getxattr(Context& context, const Request& request) {
    abi::GetxattrIn wanted{};
    const char* name = request.name(sizeof wanted);
    if (!request.parse(wanted) || name == nullptr) {
        return false;
    }
    sys::UniqueFd file;
    if (const int error = open_path(context, request.header.nodeid, file); error != 0) {
        return request.failed(error);
    }
    context.buffer.resize(kLargest);
    const auto backing =
        context.mirrors().in_union(request.header.nodeid) ? backing_xattr(name) : std::string(name);
    const auto size =
        sys::get_xattr(file.get(), backing.c_str(), context.buffer.data(), context.buffer.size());
    if (size < 0) {
        const bool no_acls = size == -EOPNOTSUPP && is_acl(name);
        return request.failed(no_acls ? -ENODATA : static_cast<int>(size));
    }
    return answer_sized(request, {context.buffer.data(), static_cast<std::size_t>(size)},
                        wanted.size);
}

bool listxattr(Context& context, const Request& request) {
    abi::GetxattrIn wanted{};
    if (!request.parse(wanted)) {
        return false;
    }
    sys::UniqueFd file;
    if (const int error = open_path(context, request.header.nodeid, file); error != 0) {
        return request.failed(error);
    }
    auto& buffer = context.buffer;
    buffer.resize(kLargest);
    const auto size =
        sys::list_xattr(file.get(), reinterpret_cast<char*>(buffer.data()), buffer.size());
    if (size < 0) {
        return request.failed(static_cast<int>(size));
    }
    std::span<std::byte> names(buffer.data(), static_cast<std::size_t>(size));
    if (context.mirrors().in_union(request.header.nodeid)) {
        names = names.first(shown_xattrs({reinterpret_cast<char*>(names.data()), names.size()}));
    }
    if (has_trusted(names) && !sys::may_administer(static_cast<pid_t>(request.header.pid))) {
        names = names.first(without_trusted(names));
    }
    return answer_sized(request, names, wanted.size);
}

}  // namespace zc::ops
