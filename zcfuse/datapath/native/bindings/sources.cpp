#include "bindings/sources.hpp"

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "bindings/source_handle.hpp"
#include "serve/nodes/pool_permits.hpp"
#include "serve/sources/directory_source.hpp"
#include "serve/sources/filter_source.hpp"
#include "serve/sources/overlay.hpp"
#include "serve/sources/pool.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace zc::bindings {

namespace {

std::string bytes_of(const nb::bytes& bytes) {
    return {bytes.c_str(), bytes.size()};
}

using AnySource = std::variant<int, SourceHandle>;

// The descriptor of a directory, which is copied, or a source.
std::shared_ptr<const Source> source_of(const AnySource& given) {
    const auto* handle = std::get_if<SourceHandle>(&given);
    return handle != nullptr ? handle->source : DirectorySource::open(std::get<int>(given));
}

void lease_union(DataPath& path, std::uint64_t nodeid, const std::vector<AnySource>& given,
                 bool sees_trusted, int work, bool metacopies, bool redirects) {
    OverlaySource::Layers layers;
    for (const auto& layer : given) {
        layers.push_back(source_of(layer));
    }
    auto& state = path.state();
    OverlayChanges changes{{}, metacopies, redirects, nullptr};
    if (work >= 0 && state.has_holder()) {
        changes.memory = {state.surviving, &state.surviving->copies()};
    }
    if (const int error = work >= 0 ? sys::dup_cloexec(work, changes.work) : 0; error < 0) {
        throw std::system_error(-error, std::generic_category(), "leasing an upper layer");
    }
    auto& leased_nodes = state.leased_nodes;
    leased_nodes.lease(nodeid, OverlaySource::make(std::move(layers), sees_trusted,
                                                   leased_nodes.snapshots(), std::move(changes)));
}

// `refusals`: the errnos of a removal, a rename and an opening for writing; 0: they are made, with
// `asks` once they are permitted.
void lease_pool(DataPath& path, std::uint64_t nodeid, const std::vector<int>& branches,
                const std::array<int, 3>& refusals, bool asks) {
    PoolSource::Branches opened;
    for (const int branch : branches) {
        opened.push_back(DirectorySource::open(branch));
    }
    auto& leased_nodes = path.state().leased_nodes;
    leased_nodes.lease(
        nodeid, PoolSource::make(std::move(opened), {refusals, asks}, leased_nodes.snapshots()));
}

// Python's own object would need the GIL where the last source of it ends.
struct PatternsHandle {
    std::shared_ptr<const NamePatterns> patterns;
};

NamePatterns::Texts texts_of(const std::vector<nb::bytes>& given) {
    NamePatterns::Texts texts;
    for (const auto& one : given) {
        texts.push_back(bytes_of(one));
    }
    return texts;
}

void make_patterns(PatternsHandle* into, const std::vector<nb::bytes>& hide,
                   const std::vector<nb::bytes>& show,
                   const std::vector<std::pair<nb::bytes, nb::bytes>>& rename) {
    NamePatterns::Renames renames;
    for (const auto& [from, to] : rename) {
        renames.emplace_back(bytes_of(from), bytes_of(to));
    }
    new (into) PatternsHandle{
        std::make_shared<const NamePatterns>(texts_of(hide), texts_of(show), renames)};
}

nb::bytes to_bytes(const std::string& text) {
    return nb::bytes(text.data(), text.size());
}

SourceHandle filter_source(const AnySource& source, const PatternsHandle& patterns,
                           const nb::bytes& above) {
    return {FilterSource::make(source_of(source), patterns.patterns, bytes_of(above))};
}

void filter_lease(const DataPath& path, std::uint64_t nodeid, const PatternsHandle& patterns,
                  const nb::bytes& above) {
    auto& leased_nodes = path.state().leased_nodes;
    const auto root = leased_nodes.root_of(nodeid);
    if (root == nullptr) {
        throw std::system_error(ENOENT, std::generic_category(), "filtering what is not leased");
    }
    leased_nodes.lease(nodeid, FilterSource::make(root->source, patterns.patterns, bytes_of(above)),
                       root->kept);
}

void add_patterns(nb::module_& module) {
    nb::class_<PatternsHandle>(module, "NamePatterns")
        .def("__init__", &make_patterns, "hide"_a, "show"_a, "rename"_a)
        .def(
            "hides",
            [](const PatternsHandle& self, const nb::bytes& above, const nb::bytes& name,
               bool directory) {
                return self.patterns->hides({above.c_str(), above.size()},
                                            {name.c_str(), name.size()}, directory);
            },
            "above"_a, "name"_a, "directory"_a)
        .def("renames", [](const PatternsHandle& self) { return self.patterns->renames(); })
        .def(
            "shown",
            [](const PatternsHandle& self, const nb::bytes& name) {
                return to_bytes(self.patterns->shown({name.c_str(), name.size()}));
            },
            "name"_a)
        .def(
            "originals",
            [](const PatternsHandle& self, const nb::bytes& name) {
                nb::list found;
                for (const auto& one : self.patterns->originals({name.c_str(), name.size()})) {
                    found.append(to_bytes(one));
                }
                return found;
            },
            "name"_a);
}

}  // namespace

void add_sources(nb::module_& module, nb::class_<DataPath>& datapath) {
    nb::class_<SourceHandle>(module, "Source");
    add_patterns(module);
    module.def("filter_source", &filter_source, "source"_a, "patterns"_a, "above"_a);
    datapath
        .def("lease_union", &lease_union, "nodeid"_a, "layers"_a, "sees_trusted"_a, "work"_a = -1,
             "metacopies"_a = false, "redirects"_a = false,
             nb::call_guard<nb::gil_scoped_release>())
        .def("lease_pool", &lease_pool, "nodeid"_a, "branches"_a, "refusals"_a, "asks"_a = false,
             nb::call_guard<nb::gil_scoped_release>())
        .def(
            "place",
            [](DataPath& path, std::uint64_t nodeid, const std::optional<nb::bytes>& name,
               std::uint32_t branch, std::optional<std::int64_t> valid_ms) {
                auto text = name ? std::optional(bytes_of(*name)) : std::nullopt;
                const nb::gil_scoped_release released;
                return path.state().leased_nodes.place(nodeid, {std::move(text), branch, valid_ms});
            },
            "nodeid"_a, "name"_a.none(), "branch"_a, "valid_ms"_a.none())
        .def(
            "permit",
            [](DataPath& path, std::uint64_t nodeid, int change,
               const std::optional<nb::bytes>& name, std::optional<std::int64_t> valid_ms) {
                auto text = name ? std::optional(bytes_of(*name)) : std::nullopt;
                const nb::gil_scoped_release released;
                return permit(path.state().leased_nodes, nodeid,
                              static_cast<PoolSource::Change>(change), std::move(text), valid_ms);
            },
            "nodeid"_a, "change"_a, "name"_a.none(), "valid_ms"_a.none())
        .def(
            "lease_source",
            [](DataPath& path, std::uint64_t nodeid, const SourceHandle& source) {
                path.state().leased_nodes.lease(nodeid, source.source);
            },
            "nodeid"_a, "source"_a, nb::call_guard<nb::gil_scoped_release>())
        .def("filter_lease", &filter_lease, "nodeid"_a, "patterns"_a, "above"_a);
}

}  // namespace zc::bindings
