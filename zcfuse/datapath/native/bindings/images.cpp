#include "bindings/images.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/source_handle.hpp"
#include "serve/sources/frozen_source.hpp"
#include "sys/syscalls.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace zc::bindings {

namespace {

// Python's own object would need the GIL where the last source of it ends.
struct ImageHandle {
    std::shared_ptr<const ErofsImage> image;
};

void require(int error, const char* what) {
    if (error != 0) {
        throw std::system_error(-error, std::generic_category(), what);
    }
}

sys::UniqueFd copy_of(int fd) {
    sys::UniqueFd copy;
    require(sys::dup_cloexec(fd, copy), "copying a descriptor");
    return copy;
}

nb::bytes to_bytes(const std::string& text) {
    return nb::bytes(text.data(), text.size());
}

ErofsImage::Inode inode_of(const ImageHandle& self, std::uint64_t nid) {
    ErofsImage::Inode inode;
    require(self.image->inode(nid, inode), "an inode of an image");
    return inode;
}

void make_image(ImageHandle* into, int fd, const std::vector<std::uint64_t>& device_sizes,
                std::pair<std::uint64_t, std::uint64_t> pieces, std::uint64_t content) {
    new (into) ImageHandle{std::make_shared<const ErofsImage>(
        copy_of(fd), ErofsImage::About{device_sizes, pieces.first, pieces.second, content})};
}

nb::tuple attributes(const ImageHandle& self, std::uint64_t nid) {
    const auto inode = inode_of(self, nid);
    return nb::make_tuple(inode.mode, inode.nlink, inode.uid, inode.gid,
                          makedev(inode.rdev_major, inode.rdev_minor), inode.size, inode.mtime_s,
                          inode.mtime_ns);
}

std::optional<std::uint64_t> lookup(const ImageHandle& self, std::uint64_t nid,
                                    const nb::bytes& name) {
    std::uint64_t found = 0;
    const int error = self.image->lookup(inode_of(self, nid), {name.c_str(), name.size()}, found);
    if (error == -ENOENT) {
        return std::nullopt;
    }
    require(error, "a directory of an image");
    return found;
}

nb::list entries(const ImageHandle& self, std::uint64_t nid, std::uint64_t position) {
    std::vector<ErofsImage::Entry> found;
    require(self.image->entries(inode_of(self, nid), position, found), "a directory of an image");
    nb::list result;
    for (const auto& entry : found) {
        result.append(nb::make_tuple(entry.next, to_bytes(entry.name), entry.nid));
    }
    return result;
}

nb::bytes target(const ImageHandle& self, std::uint64_t nid) {
    std::string found;
    require(self.image->target(inode_of(self, nid), found), "a link of an image");
    return to_bytes(found);
}

nb::bytes xattr(const ImageHandle& self, std::uint64_t nid, const nb::bytes& name) {
    std::string found;
    require(self.image->xattr(inode_of(self, nid), {name.c_str(), name.size()}, found),
            "an extended attribute of an image");
    return to_bytes(found);
}

nb::list xattr_names(const ImageHandle& self, std::uint64_t nid) {
    std::vector<std::string> names;
    require(self.image->xattr_names(inode_of(self, nid), names),
            "the extended attributes of an image");
    nb::list result;
    for (const auto& name : names) {
        result.append(to_bytes(name));
    }
    return result;
}

// A redirect, or pieces: (device, offset, length).
nb::object place(const ImageHandle& self, std::uint64_t nid) {
    ErofsImage::Data found;
    require(self.image->place(inode_of(self, nid), found), "a file of an image");
    if (found.redirect) {
        return to_bytes(*found.redirect);
    }
    nb::list pieces;
    for (const auto& piece : found.pieces) {
        pieces.append(nb::make_tuple(piece.device, piece.offset, piece.length));
    }
    return nb::object(std::move(pieces));
}

SourceHandle frozen_source(
    const ImageHandle& image,
    const std::vector<std::tuple<nb::bytes, std::uint64_t, std::int64_t>>& devices,
    const std::vector<int>& roots, std::pair<std::uint32_t, std::uint32_t> refused) {
    std::vector<FrozenSource::Device> copied;
    for (const auto& [path, size, mtime_ns] : devices) {
        copied.push_back({{path.c_str(), path.size()}, size, mtime_ns});
    }
    std::vector<sys::UniqueFd> copies;
    for (const int root : roots) {
        copies.push_back(copy_of(root));
    }
    return {FrozenSource::make(image.image, std::move(copied), std::move(copies),
                               std::uint64_t{refused.first} << 32 | refused.second)};
}

}  // namespace

void add_images(nb::module_& module) {
    nb::class_<ImageHandle>(module, "ErofsImage")
        .def("__init__", &make_image, "fd"_a, "device_sizes"_a, "pieces"_a, "content"_a)
        .def_prop_ro("root", [](const ImageHandle& self) { return self.image->root(); })
        .def("attributes", &attributes, "nid"_a)
        .def("lookup", &lookup, "nid"_a, "name"_a)
        .def("entries", &entries, "nid"_a, "position"_a)
        .def("target", &target, "nid"_a)
        .def("xattr", &xattr, "nid"_a, "name"_a)
        .def("xattr_names", &xattr_names, "nid"_a)
        .def("place", &place, "nid"_a);
    module.def("frozen_source", &frozen_source, "image"_a, "devices"_a, "roots"_a, "refused"_a);
}

}  // namespace zc::bindings
