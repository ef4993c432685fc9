#include "bindings/directories.hpp"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "serve/sources/directory_source.hpp"
#include "serve/sources/layer_marks.hpp"
#include "sys/files.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace zc::bindings {

namespace {

using Released = nb::gil_scoped_release;

struct UsersHandle {
    std::shared_ptr<UserDescriptors> users;
};

// An identity as Python holds it.
struct PackedIdentity {
    std::uint64_t ino;
    std::uint64_t birth;
    std::uint32_t type;
};
constexpr std::size_t kIdentityBytes = 20;
static_assert(offsetof(PackedIdentity, type) + sizeof(std::uint32_t) == kIdentityBytes);

nb::bytes packed(const Identity& identity) {
    const PackedIdentity whole{identity.ino, identity.birth, identity.type};
    return nb::bytes(reinterpret_cast<const char*>(&whole), kIdentityBytes);
}

Identity unpacked(const nb::bytes& bytes) {
    if (bytes.size() != kIdentityBytes) {
        throw nb::value_error("not an identity");
    }
    PackedIdentity whole{};
    std::memcpy(&whole, bytes.c_str(), kIdentityBytes);
    return {whole.ino, whole.birth, 0, whole.type};
}

nb::object nanoseconds(const statx_timestamp& time) {
    return nb::int_(time.tv_sec) * nb::int_(1'000'000'000) + nb::int_(time.tv_nsec);
}

// The fields of Python's Attributes.
nb::tuple attributes_of(const struct ::statx& status, std::uint64_t numbers_of) {
    const auto device = device_of(status);
    const auto ino = device == numbers_of ? status.stx_ino : mixed_ino(device, status.stx_ino);
    return nb::make_tuple(
        ino, status.stx_mode, status.stx_nlink, status.stx_uid, status.stx_gid,
        static_cast<std::uint64_t>(::makedev(status.stx_rdev_major, status.stx_rdev_minor)),
        status.stx_size, status.stx_blksize, status.stx_blocks, nanoseconds(status.stx_atime),
        nanoseconds(status.stx_mtime), nanoseconds(status.stx_ctime));
}

// False: another mount is in the way, and Python crosses it.
bool answered(int error) {
    if (error < 0) {
        throw std::system_error(-error, std::generic_category(), "a backing file");
    }
    return error == 0;
}

// Makes a call without the GIL, because it may wait for a disk.
template <class Call>
bool released(Call call) {
    int error = 0;
    {
        const Released without;
        error = call();
    }
    return answered(error);
}

nb::bytes to_bytes(std::string_view text) {
    return nb::bytes(text.data(), text.size());
}

// A name or path for a system call.
const char* text_of(const nb::bytes& bytes) {
    if (std::string_view(bytes.c_str(), bytes.size()).find('\0') != std::string_view::npos) {
        throw std::system_error(EINVAL, std::generic_category(), "a NUL in a name");
    }
    return bytes.c_str();
}

DirectoryHandle open_root(int fd, std::uint64_t numbers_of, bool walks) {
    return {DirectorySource::open_any(sys::UniqueFd(fd), walks)->root(), numbers_of};
}

nb::object enter(const DirectoryHandle& self, const nb::bytes& path) {
    DirectoryHandle found{nullptr, self.numbers_of};
    const std::string_view text(text_of(path));
    if (!released([&] { return self.at->enter(text, found.at); })) {
        return nb::none();
    }
    return nb::cast(std::move(found));
}

nb::object find(const DirectoryHandle& self, const nb::bytes& name) {
    const auto* text = text_of(name);
    Found found;
    if (!released([&] { return self.at->find(text, found); })) {
        return nb::none();
    }
    return nb::make_tuple(packed(found.identity), attributes_of(found.status, self.numbers_of));
}

nb::object status(const DirectoryHandle& self, const nb::bytes& name, const nb::bytes& identity) {
    const auto* text = text_of(name);
    struct ::statx found {};
    const auto wanted = unpacked(identity);
    if (!released([&] { return self.at->status(text, wanted, found); })) {
        return nb::none();
    }
    return attributes_of(found, self.numbers_of);
}

nb::object open(const DirectoryHandle& self, const nb::bytes& name, const nb::bytes& identity) {
    const auto* text = text_of(name);
    sys::UniqueFd copy;
    const auto wanted = unpacked(identity);
    const bool done = released([&] {
        Opened found;
        const int error = self.at->open(text, wanted, found);
        return error != 0 ? error : sys::dup_cloexec(found.extents[0].file->get(), copy);
    });
    if (!done) {
        return nb::none();
    }
    return nb::int_(copy.release());
}

nb::object read_link(const DirectoryHandle& self, const nb::bytes& name,
                     const nb::bytes& identity) {
    const auto* text = text_of(name);
    std::string found;
    const auto wanted = unpacked(identity);
    if (!released([&] { return self.at->read_link(text, wanted, found); })) {
        return nb::none();
    }
    return to_bytes(found);
}

nb::object get_xattr(const DirectoryHandle& self, const nb::bytes& name, const nb::bytes& identity,
                     const nb::bytes& attribute) {
    const auto* text = text_of(name);
    const auto* attribute_text = text_of(attribute);
    Bytes found;
    const auto wanted = unpacked(identity);
    if (!released([&] { return self.at->get_xattr(text, wanted, attribute_text, found); })) {
        return nb::none();
    }
    return to_bytes({reinterpret_cast<const char*>(found.data()), found.size()});
}

nb::object list_xattrs(const DirectoryHandle& self, const nb::bytes& name,
                       const nb::bytes& identity) {
    const auto* text = text_of(name);
    Bytes found;
    const auto wanted = unpacked(identity);
    if (!released([&] { return self.at->list_xattrs(text, wanted, found); })) {
        return nb::none();
    }
    std::string_view rest(reinterpret_cast<const char*>(found.data()), found.size());
    nb::list names;
    while (!rest.empty()) {
        const auto one = rest.substr(0, rest.find('\0'));
        names.append(to_bytes(one));
        rest.remove_prefix(std::min(one.size() + 1, rest.size()));
    }
    return names;
}

int read_names(const SourceDirectory& at, std::vector<std::pair<std::string, unsigned>>& into) {
    std::unique_ptr<Listing> listing;
    std::vector<struct ::statx> versions;
    int error = at.list(listing, versions);
    error = error == 0 ? listing->seek(0) : error;
    for (Listing::Entry entry; error == 0; listing->skip()) {
        if (const int more = listing->peek(entry); more <= 0) {
            return more;
        }
        if (entry.text() != "." && entry.text() != "..") {
            into.emplace_back(entry.text(), entry.type);
        }
    }
    return error;
}

nb::dict names(const DirectoryHandle& self) {
    std::vector<std::pair<std::string, unsigned>> found;
    released([&] { return read_names(*self.at, found); });
    nb::dict names;
    for (const auto& [name, type] : found) {
        names[to_bytes(name)] = type;
    }
    return names;
}

nb::list shown_names(const nb::list& names) {
    std::string joined;
    for (const auto name : names) {
        const auto one = nb::cast<nb::bytes>(name);
        joined.append(one.c_str(), one.size()).push_back('\0');
    }
    joined.resize(shown_xattrs(joined));
    nb::list shown;
    for (std::string_view rest(joined); !rest.empty();) {
        const auto one = rest.substr(0, rest.find('\0'));
        shown.append(to_bytes(one));
        rest.remove_prefix(one.size() + 1);
    }
    return shown;
}

}  // namespace

void add_directories(nb::module_& module, nb::class_<DataPath>& datapath) {
    nb::class_<DirectoryHandle>(module, "SourceDirectory")
        .def("enter", &enter, "path"_a)
        .def("find", &find, "name"_a)
        .def("status", &status, "name"_a, "identity"_a)
        .def("open", &open, "name"_a, "identity"_a)
        .def("read_link", &read_link, "name"_a, "identity"_a)
        .def("get_xattr", &get_xattr, "name"_a, "identity"_a, "attribute"_a)
        .def("list_xattrs", &list_xattrs, "name"_a, "identity"_a)
        .def("names", &names)
        .def("fileno", [](const DirectoryHandle& self) { return self.at->descriptor(); });
    nb::class_<UsersHandle>(module, "UserDescriptors")
        .def(
            "__init__",
            [](UsersHandle* self, std::size_t descriptors, std::size_t next, bool shared) {
                new (self) UsersHandle{std::make_shared<UserDescriptors>(descriptors, shared)};
                self->users->share_from(next);
            },
            "descriptors"_a, "next"_a, "shared"_a)
        .def(
            "admits",
            [](const UsersHandle& self, std::uint32_t uid) { return self.users->admits(uid); },
            "uid"_a)
        .def(
            "take",
            [](const UsersHandle& self, std::uint32_t uid, std::size_t count) {
                self.users->take(uid, count);
            },
            "uid"_a, "count"_a)
        .def(
            "give",
            [](const UsersHandle& self, std::uint32_t uid, std::size_t count) {
                self.users->give(uid, count);
            },
            "uid"_a, "count"_a)
        .def(
            "spares",
            [](const UsersHandle& self, std::uint32_t uid, int fd) {
                return self.users->spares(uid, fd);
            },
            "uid"_a, "fd"_a);
    datapath.def("user_descriptors", [](const DataPath& path) {
        return UsersHandle{path.state().leased_nodes.users()};
    });
    module.def("open_directory", &open_root, "fd"_a, "numbers_of"_a, "walks"_a = false,
               nb::call_guard<Released>());
    module.def(
        "packed_identity",
        [](std::uint64_t ino, std::uint64_t birth, std::uint32_t type) {
            return packed({ino, birth, 0, type});
        },
        "ino"_a, "birth"_a, "type"_a);
    module.def("shown_xattrs", &shown_names, "names"_a);
    module.def(
        "backing_xattr",
        [](const nb::bytes& name) {
            return to_bytes(backing_xattr({name.c_str(), name.size()}));
        },
        "name"_a);
    module.def(
        "is_reserved",
        [](const nb::bytes& name) {
            return is_reserved({name.c_str(), name.size()});
        },
        "name"_a);
}

}  // namespace zc::bindings
