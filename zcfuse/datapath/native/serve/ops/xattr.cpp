// GETXATTR and LISTXATTR open the file and compare its identity first. They hide the marks that
// overlayfs wrote into the layers of a union.
//
// The kernel fetches ACLs itself (FUSE_POSIX_ACL) and takes any errno but ENODATA for a refusal of
// access (fs/fuse/acl.c), so a backing filesystem without ACLs has none on its files; once it has
// said so, it is not asked again.
#include <cerrno>

#include "serve/ops/operation.hpp"
#include "sys/files.hpp"
#include "sys/processes.hpp"

namespace zc::ops {

namespace {

constexpr std::string_view kTrusted = "trusted.";
constexpr std::string_view kCapability = "security.capability";
constexpr std::size_t kCapabilityBytes = 64;  // struct vfs_ns_cap_data has 24

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

}  // namespace

namespace {

// The kernel asks for the capabilities of a file before the first write of an open. They are those
// of the file that clients have open for writing.
int read_value(Context& context, std::uint64_t nodeid, const char* name, Bytes& into) {
    auto& leased_nodes = context.leased_nodes();
    const auto writer = name == kCapability ? leased_nodes.files().writer(nodeid) : nullptr;
    if (writer == nullptr) {
        return leased_nodes.get_xattr(nodeid, context.counts, name, into);
    }
    into.resize(kCapabilityBytes);
    const auto size = sys::get_xattr(writer->get(), name, into.data(), into.size());
    into.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
    return size < 0 ? static_cast<int>(size) : 0;
}

}  // namespace

bool getxattr(Context& context, const Request& request) {
    abi::GetxattrIn wanted{};
    const char* name = request.name(sizeof wanted);
    if (!request.parse(wanted) || name == nullptr) {
        return false;
    }
    auto& value = context.buffer;
    const int error = read_value(context, request.header.nodeid, name, value);
    if (error != 0) {
        return request.failed(error == -EOPNOTSUPP && is_acl(name) ? -ENODATA : error);
    }
    return answer_sized(request, value, wanted.size);
}

bool listxattr(Context& context, const Request& request) {
    abi::GetxattrIn wanted{};
    if (!request.parse(wanted)) {
        return false;
    }
    auto& names = context.buffer;
    if (const int error =
            context.leased_nodes().list_xattrs(request.header.nodeid, context.counts, names);
        error != 0) {
        return request.failed(error);
    }
    auto shown = std::span(names);
    if (has_trusted(shown) && !sys::may_administer(static_cast<pid_t>(request.header.pid))) {
        shown = shown.first(without_trusted(shown));
    }
    return answer_sized(request, shown, wanted.size);
}

}  // namespace zc::ops
