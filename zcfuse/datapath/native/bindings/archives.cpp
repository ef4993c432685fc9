#include "bindings/archives.hpp"

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/source_handle.hpp"
#include "serve/sources/index_source.hpp"
#include "serve/sources/member_index.hpp"
#include "sys/files.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace zc::bindings {

namespace {

// Of RLIMIT_NOFILE, for archives; members of those beyond it are opened by control.
constexpr std::size_t kArchiveShare = 8;

using Version = std::tuple<std::uint64_t, std::int64_t, std::int64_t>;
using Owner = std::optional<std::uint32_t>;

// Python's own object would need the GIL where the last lease of it ends.
struct IndexHandle {
    std::shared_ptr<const MemberIndex> index;
};

void require(int error) {
    if (error == kUpcall) {
        throw std::system_error(EIO, std::generic_category(), "the index is damaged");
    }
    if (error < 0) {
        throw std::system_error(-error, std::generic_category(), "the index of an archive");
    }
}

std::string bytes_of(const nb::bytes& bytes) {
    return {bytes.c_str(), bytes.size()};
}

nb::bytes to_bytes(std::string_view text) {
    return nb::bytes(text.data(), text.size());
}

void make_index(IndexHandle* into, const std::array<nb::bytes, 4>& sections,
                const Version& version) {
    MemberIndex::Sections copied{bytes_of(sections[0]), bytes_of(sections[1]),
                                 bytes_of(sections[2]), bytes_of(sections[3])};
    const nb::gil_scoped_release released;
    const auto& [size, mtime_ns, ctime_ns] = version;
    new (into) IndexHandle{std::make_shared<const MemberIndex>(
        std::move(copied), MemberIndex::Version{size, mtime_ns, ctime_ns}, MemberIndex::Shown{},
        sys::UniqueFd())};
}

std::optional<std::uint32_t> lookup(const IndexHandle& self, std::uint32_t directory,
                                    const nb::bytes& name) {
    std::uint32_t node = 0;
    const int error = self.index->lookup(directory, {name.c_str(), name.size()}, node);
    if (error == -ENOENT) {
        return std::nullopt;
    }
    require(error);
    return node;
}

nb::list names(const IndexHandle& self, std::uint32_t directory, std::uint64_t start,
               std::uint64_t most) {
    MemberIndex::Names all;
    require(self.index->names_of(directory, all));
    nb::list found;
    for (auto i = start; i < all.count && i - start < most; ++i) {
        MemberIndex::Entry entry;
        require(self.index->entry(all.first + i, entry));
        found.append(nb::make_tuple(to_bytes(entry.name), entry.node));
    }
    return found;
}

nb::tuple member(const IndexHandle& self, std::uint32_t number) {
    NodeRecord found{};
    require(self.index->node(number, found));
    return nb::make_tuple(static_cast<unsigned>(found.kind), found.mode, found.uid, found.gid,
                          found.nlink, found.mtime_ns, found.size, found.place, found.stored(),
                          found.detail);
}

// The fields of Python's Attributes.
nb::tuple attributes(const IndexHandle& self, std::uint32_t number, std::uint64_t first_ino,
                     Owner uid, Owner gid) {
    abi::Attr found{};
    require(MemberIndex(*self.index, {first_ino, uid, gid}, {}).attributes(number, found));
    NodeRecord record{};
    require(self.index->node(number, record));
    return nb::make_tuple(found.ino, found.mode, found.nlink, found.uid, found.gid, found.rdev,
                          found.size, found.blksize, found.blocks, record.mtime_ns, record.mtime_ns,
                          record.mtime_ns);
}

nb::bytes target(const IndexHandle& self, std::uint32_t number) {
    std::string_view found;
    require(self.index->target(number, found));
    return to_bytes(found);
}

nb::list runs(const IndexHandle& self, std::uint32_t number) {
    std::vector<MemberIndex::Run> found;
    require(self.index->runs(number, found));
    nb::list shown;
    for (const auto& run : found) {
        const nb::object offset = run.is_hole ? nb::none() : nb::object(nb::int_(run.offset));
        shown.append(nb::make_tuple(offset, run.length));
    }
    return shown;
}

// The descriptor is copied.
SourceHandle source(const IndexHandle& self, int fd, std::uint64_t first_ino, Owner uid,
                    Owner gid) {
    sys::UniqueFd file;
    if (const int error = fd >= 0 ? sys::dup_cloexec(fd, file) : 0; error < 0) {
        throw std::system_error(-error, std::generic_category(), "copying a descriptor");
    }
    const MemberIndex::Shown shown{first_ino, uid, gid};
    return {IndexSource::make(
        std::make_shared<const MemberIndex>(*self.index, shown, std::move(file)))};
}

void lease_archive(DataPath& path, std::uint64_t nodeid, const IndexHandle& index, int fd,
                   std::uint64_t first_ino, Owner uid, Owner gid) {
    auto& leased_nodes = path.state().leased_nodes;
    const bool room = leased_nodes.statistics().indexes < sys::descriptor_limit() / kArchiveShare;
    leased_nodes.lease(nodeid, source(index, room ? fd : -1, first_ino, uid, gid).source);
}

}  // namespace

void add_archives(nb::module_& module, nb::class_<DataPath>& datapath) {
    module.attr("ENTRY_FORMAT") = kEntryFormat;
    module.attr("NODE_FORMAT") = kNodeFormat;
    module.attr("PIECE_FORMAT") = kPieceFormat;
    nb::class_<IndexHandle>(module, "MemberIndex")
        .def("__init__", &make_index, "sections"_a, "version"_a)
        .def("lookup", &lookup, "directory"_a, "name"_a)
        .def("names", &names, "directory"_a, "start"_a, "most"_a)
        .def("member", &member, "node"_a)
        .def("attributes", &attributes, "node"_a, nb::kw_only(), "first_ino"_a, "uid"_a.none(),
             "gid"_a.none())
        .def("target", &target, "node"_a)
        .def("runs", &runs, "node"_a)
        .def("source", &source, "fd"_a, nb::kw_only(), "first_ino"_a, "uid"_a.none(),
             "gid"_a.none())
        .def_prop_ro("bytes", [](const IndexHandle& self) { return self.index->bytes(); });
    datapath.def("lease_archive", &lease_archive, "nodeid"_a, "index"_a, "fd"_a, nb::kw_only(),
                 "first_ino"_a, "uid"_a.none(), "gid"_a.none());
}

}  // namespace zc::bindings
