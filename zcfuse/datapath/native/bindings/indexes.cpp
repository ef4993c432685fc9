#include "bindings/indexes.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "serve/sources/filter_source.hpp"
#include "serve/sources/live_index.hpp"
#include "sys/files.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace zc::bindings {

namespace {

// Of RLIMIT_NOFILE, for directories of backing files.
constexpr std::size_t kDirectoryShare = 16;
constexpr std::size_t kLeastDirectories = 8;

std::string text_of(nb::handle bytes) {
    const auto given = nb::cast<nb::bytes>(bytes);
    return {given.c_str(), given.size()};
}

// (mode, uid, gid, mtime in ns, path), each None where it was not given.
GivenAttributes given_of(nb::handle value) {
    GivenAttributes given;
    if (value.is_none()) {
        return given;
    }
    const auto take = [&](std::size_t at, std::uint8_t bit, auto& into) {
        const nb::object one =
            nb::steal(PySequence_GetItem(value.ptr(), static_cast<Py_ssize_t>(at)));
        if (!one.is_none()) {
            into = nb::cast<std::decay_t<decltype(into)>>(one);
            given.set |= bit;
        }
    };
    take(0, kGivenMode, given.mode);
    take(1, kGivenUid, given.uid);
    take(2, kGivenGid, given.gid);
    take(3, kGivenMtime, given.mtime_ns);
    std::string path;
    take(4, 0, path);
    given.path = path.empty() ? std::nullopt : std::optional(parse_mode(path));
    return given;
}

// (kind, offset, length, source): a path, a descriptor, or the number of parts.
void add_term(nb::handle value, LiveIndex::Spec& into) {
    const auto term = nb::cast<nb::tuple>(value);
    BlobTerm made;
    made.kind = static_cast<BlobTerm::Kind>(nb::cast<unsigned>(term[0]));
    made.offset = nb::cast<std::uint64_t>(term[1]);
    made.length = nb::cast<std::uint64_t>(term[2]);
    switch (made.kind) {
        case BlobTerm::Kind::file:
            into.paths.push_back(text_of(term[3]));
            break;
        case BlobTerm::Kind::memory:
            into.memories.push_back(nb::cast<int>(term[3]));
            made.whole = nb::cast<bool>(term[4]);
            break;
        case BlobTerm::Kind::concat:
            made.count = nb::cast<std::uint32_t>(term[3]);
            break;
        default:
            break;
    }
    into.terms.push_back(std::move(made));
}

// (name, kind, given, key, time in ns, value)
LiveIndex::Spec spec_of(nb::handle value) {
    const auto entry = nb::cast<nb::tuple>(value);
    LiveIndex::Spec spec;
    spec.name = text_of(entry[0]);
    spec.kind = static_cast<EntryKind>(nb::cast<unsigned>(entry[1]));
    spec.given = given_of(entry[2]);
    spec.key = nb::cast<std::uint64_t>(entry[3]);
    spec.time_ns = nb::cast<std::int64_t>(entry[4]);
    if (spec.kind == EntryKind::directory) {
        const auto how = nb::cast<nb::tuple>(entry[5]);
        spec.asks = nb::cast<bool>(how[0]);
        spec.keeps = nb::cast<bool>(how[1]);
    } else if (spec.kind == EntryKind::symlink) {
        spec.target = text_of(entry[5]);
    } else if (spec.kind == EntryKind::forwarded || spec.kind == EntryKind::none) {
        const auto shown = nb::cast<nb::tuple>(entry[5]);
        spec.type = nb::cast<std::uint32_t>(shown[0]);
        spec.ino = nb::cast<std::uint64_t>(shown[1]);
    } else if (spec.kind == EntryKind::blob) {
        for (const auto term : nb::cast<nb::tuple>(entry[5])) {
            add_term(term, spec);
        }
    }
    return spec;
}

// Control alone changes it: to all others a source is const.
std::shared_ptr<LiveIndex> live_index(const DataPath& path, std::uint64_t nodeid) {
    const auto root = path.state().leased_nodes.root_of(nodeid);
    auto source = root ? root->source : nullptr;
    while (const auto filter = std::dynamic_pointer_cast<const FilterSource>(source)) {
        source = filter->inner();
    }
    auto index = std::dynamic_pointer_cast<LiveIndex>(std::const_pointer_cast<Source>(source));
    if (index == nullptr) {
        throw std::system_error(ENOENT, std::generic_category(), "no index is leased");
    }
    return index;
}

void lease_index(DataPath& path, std::uint64_t nodeid, std::uint32_t uid, std::uint32_t gid,
                 std::int64_t made_ns, nb::handle given, std::uint64_t key, std::int64_t time_ns,
                 bool asks) {
    auto& state = path.state();
    const auto attributes = given_of(given);
    const auto limit =
        std::max<std::size_t>(sys::descriptor_limit() / kDirectoryShare, kLeastDirectories);
    auto index = std::make_shared<LiveIndex>(LiveIndex::Shown{uid, gid, made_ns},
                                             state.leased_nodes.trust_ms(), limit);
    const auto refused = state.leased_nodes.refused_device();
    index->refuse_device(static_cast<std::uint32_t>(refused >> 32),
                         static_cast<std::uint32_t>(refused));
    index->set_root(attributes, key, time_ns, asks);
    state.leased_nodes.lease(nodeid, std::move(index));
}

std::vector<LiveIndex::Spec> specs_of(const nb::list& entries) {
    std::vector<LiveIndex::Spec> specs;
    specs.reserve(entries.size());
    for (const auto entry : entries) {
        specs.push_back(spec_of(entry));
    }
    return specs;
}

LiveIndex::AnswerLease lease_of(std::optional<std::uint32_t> uid,
                                std::optional<std::int64_t> valid_ms) {
    return {uid, valid_ms ? sys::coarse_milliseconds() + *valid_ms : LiveIndex::kForever};
}

std::vector<std::uint32_t> index_put(const DataPath& path, std::uint64_t nodeid,
                                     std::uint32_t directory, nb::list entries,
                                     std::int64_t time_ns, std::optional<std::uint32_t> uid,
                                     std::optional<std::int64_t> valid_ms) {
    auto specs = specs_of(entries);
    const nb::gil_scoped_release released;
    auto numbers = live_index(path, nodeid)
                       ->put(directory, std::move(specs), time_ns, lease_of(uid, valid_ms));
    path.state().leased_nodes.forget_directories();
    return numbers;
}

std::vector<std::uint32_t> index_list(const DataPath& path, std::uint64_t nodeid,
                                      std::uint32_t directory, nb::list entries,
                                      std::int64_t time_ns, std::optional<std::uint32_t> uid,
                                      std::optional<std::int64_t> valid_ms, bool complete) {
    auto specs = specs_of(entries);
    const nb::gil_scoped_release released;
    auto numbers =
        live_index(path, nodeid)
            ->list(directory, std::move(specs), time_ns, lease_of(uid, valid_ms), complete);
    path.state().leased_nodes.forget_directories();
    return numbers;
}

void index_drop(const DataPath& path, std::uint64_t nodeid, std::uint32_t directory,
                const nb::bytes& name, std::optional<std::uint32_t> uid) {
    live_index(path, nodeid)->drop(directory, {name.c_str(), name.size()}, uid);
}

void index_remove(const DataPath& path, std::uint64_t nodeid, std::uint32_t directory,
                  const nb::bytes& name, std::int64_t time_ns) {
    live_index(path, nodeid)->remove(directory, {name.c_str(), name.size()}, time_ns);
    path.state().leased_nodes.forget_directories();
}

// The nodeid of a directory, 0 where the kernel does not know it.
std::uint64_t index_nodeid(const DataPath& path, std::uint64_t nodeid, std::uint32_t directory) {
    if (directory == LiveIndex::kRoot) {
        return nodeid;
    }
    auto& leased_nodes = path.state().leased_nodes;
    auto identity = live_index(path, nodeid)->identity_of(directory);
    identity.lease = leased_nodes.root_of(nodeid)->number;
    return leased_nodes.nodes().nodeid_of(identity);
}

}  // namespace

void add_indexes(nb::class_<DataPath>& datapath) {
    datapath
        .def("lease_index", &lease_index, "nodeid"_a, nb::kw_only(), "uid"_a, "gid"_a, "made_ns"_a,
             "given"_a.none(), "key"_a, "time_ns"_a, "asks"_a = false)
        .def("index_put", &index_put, "nodeid"_a, "directory"_a, "entries"_a, "time_ns"_a,
             nb::kw_only(), "uid"_a.none() = nb::none(), "valid_ms"_a.none() = nb::none())
        .def("index_list", &index_list, "nodeid"_a, "directory"_a, "entries"_a, "time_ns"_a,
             nb::kw_only(), "uid"_a.none(), "valid_ms"_a.none(), "complete"_a)
        .def("index_drop", &index_drop, "nodeid"_a, "directory"_a, "name"_a, "uid"_a.none())
        .def(
            "index_ino",
            [](const DataPath& path, std::uint64_t nodeid, std::uint32_t number) {
                return live_index(path, nodeid)->ino_of_entry(number);
            },
            "nodeid"_a, "number"_a, nb::call_guard<nb::gil_scoped_release>())
        .def("index_remove", &index_remove, "nodeid"_a, "directory"_a, "name"_a, "time_ns"_a)
        .def("index_nodeid", &index_nodeid, "nodeid"_a, "directory"_a);
}

}  // namespace zc::bindings
