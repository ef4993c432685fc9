// With statistics.cpp the only place that sees Python. Each function releases the GIL for as long
// as it is in C++, and takes it back only to build its result; the data path's threads never hold
// it.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <tuple>
#include <variant>

#include "bindings/archives.hpp"
#include "bindings/constants.hpp"
#include "bindings/directories.hpp"
#include "bindings/images.hpp"
#include "bindings/indexes.hpp"
#include "bindings/layers.hpp"
#include "bindings/sources.hpp"
#include "bindings/statistics.hpp"
#include "bindings/surviving.hpp"
#include "bindings/trace.hpp"
#include "serve/datapath.hpp"
#include "serve/sources/directory_source.hpp"
#include "sys/faults.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// What of a growing file is there; leases share it with Python.
struct PresenceHandle {
    std::shared_ptr<zc::Presence> presence;
};

// [(nodeid, name, device, inode number, time of birth, type, layer)], the leased directory first.
nb::list describe(zc::DataPath& path, std::uint64_t nodeid) {
    std::vector<zc::LeasedNodes::Description> chain;
    {
        const nb::gil_scoped_release released;
        chain = path.state().leased_nodes.describe(nodeid);
    }
    nb::list result;
    for (const auto& one : chain) {
        result.append(nb::make_tuple(one.nodeid, nb::bytes(one.name.data(), one.name.size()),
                                     one.device, one.identity.ino, one.identity.birth,
                                     one.identity.type, one.layer));
    }
    return result;
}

std::vector<std::string> operations() {
    std::vector<std::string> names;
    for (std::uint32_t opcode = 0; opcode < zc::abi::kOpcodes; ++opcode) {
        names.emplace_back(zc::abi::opcode_name(opcode));
    }
    return names;
}

using Extents = std::vector<std::tuple<int, std::uint64_t, std::uint64_t>>;

std::vector<zc::InstallExtent> converted(const Extents& extents) {
    std::vector<zc::InstallExtent> result;
    result.reserve(extents.size());
    for (const auto& [fd, offset, length] : extents) {
        result.push_back({fd, offset, length});
    }
    return result;
}

std::pair<std::string, std::string> install(zc::DataPath& path, std::uint64_t nodeid,
                                            const Extents& extents, const std::string& path_name,
                                            std::optional<PresenceHandle> presence) {
    const auto converted_extents = converted(extents);
    const nb::gil_scoped_release released;
    return path.install(nodeid, converted_extents, path_name,
                        presence ? presence->presence : nullptr);
}

std::pair<std::string, std::string> would_serve(zc::DataPath& path, const Extents& extents,
                                                const std::string& path_name) {
    return path.would_serve(converted(extents), path_name);
}

int granted_buffer(int fd, std::size_t wanted) {
    const int bytes = static_cast<int>(wanted);
    zc::sys::set_socket_buffer(fd, SO_SNDBUF, SO_SNDBUFFORCE, bytes);
    int granted = 0;
    socklen_t size = sizeof granted;
    if (::getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &granted, &size) < 0) {
        return 0;
    }
    return granted;
}

// A message must be smaller than the sender's buffer less 32 bytes (Linux 6.18,
// unix_dgram_sendmsg); SO_SNDBUF reads back the doubled value that this is checked against
// (socket(7)).
std::tuple<int, int, std::size_t> upcall_pair(std::size_t message_bytes) {
    std::array<int, 2> ends{-1, -1};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) < 0) {
        throw std::system_error(errno, std::generic_category(), "socketpair for the upcalls");
    }
    const int granted =
        std::min(granted_buffer(ends[0], message_bytes), granted_buffer(ends[1], message_bytes));
    return {ends[0], ends[1], static_cast<std::size_t>(std::max(granted - 32, 0))};
}

void translate(const std::exception_ptr& thrown, void*) {
    try {
        std::rethrow_exception(thrown);
    } catch (const std::system_error& error) {
        PyErr_SetObject(PyExc_OSError, nb::make_tuple(error.code().value(), error.what()).ptr());
    }
}

void bind_presence(nb::module_& module) {
    nb::class_<PresenceHandle>(module, "Presence")
        .def(
            "__init__",
            [](PresenceHandle* self, std::size_t pieces, std::uint64_t piece_bytes) {
                if (piece_bytes == 0) {
                    throw nb::value_error("a piece has bytes");
                }
                new (self) PresenceHandle{std::make_shared<zc::Presence>(pieces, piece_bytes)};
            },
            "pieces"_a, "piece_bytes"_a)
        .def(
            "show",
            [](const PresenceHandle& self, std::size_t first, std::size_t stop) {
                self.presence->show(first, stop);
            },
            "first"_a, "stop"_a)
        .def(
            "hide",
            [](const PresenceHandle& self, std::size_t first, std::size_t stop) {
                self.presence->hide(first, stop);
            },
            "first"_a, "stop"_a);
}

void bind_config(nb::module_& module) {
    nb::class_<zc::Config>(module, "Config")
        .def(nb::init<>())
        .def_rw("path", &zc::Config::path)
        .def_rw("threads", &zc::Config::threads)
        .def_rw("stack_depth", &zc::Config::stack_depth)
        .def_rw("lock_budget", &zc::Config::lock_budget)
        .def_rw("prefault", &zc::Config::prefault)
        .def_rw("hot_files", &zc::Config::hot_files)
        .def_rw("read_only", &zc::Config::read_only)
        .def_rw("shared", &zc::Config::shared)
        .def_rw("control_tasks", &zc::Config::control_tasks)
        .def_rw("upcall_timeout", &zc::Config::upcall_timeout)
        .def_rw("message_bytes", &zc::Config::message_bytes)
        .def_rw("cache_timeout", &zc::Config::cache_timeout)
        .def_rw("immutable", &zc::Config::immutable)
        .def_rw("silent_opens", &zc::Config::silent_opens)
        .def_rw("push", &zc::Config::push)
        .def_rw("fence_directory", &zc::Config::fence_directory)
        .def_rw("splice_min", &zc::Config::splice_min)
        .def_rw("transport", &zc::Config::transport)
        .def_rw("passthrough_permitted", &zc::Config::passthrough_permitted)
        .def_rw("source_stacked", &zc::Config::source_stacked)
        .def_rw("source_in_parts", &zc::Config::source_in_parts)
        .def_rw("ring_depth", &zc::Config::ring_depth);
}

nb::class_<zc::DataPath> bind_datapath(nb::module_& module) {
    using zc::DataPath;
    using Released = nb::call_guard<nb::gil_scoped_release>;
    return nb::class_<DataPath>(module, "DataPath")
        .def(nb::init<int, int, const zc::Config&, bool>(), "channel_fd"_a, "upcall_fd"_a,
             "config"_a, nb::kw_only(), "device"_a)
        .def(
            "set_abort",
            [](DataPath& path, const std::string& abort_file, const nb::bytes& mountpoint) {
                path.set_abort(abort_file, std::string(mountpoint.c_str(), mountpoint.size()));
            },
            "abort_file"_a, "mountpoint"_a)
        .def(
            "set_mountpoint",
            [](DataPath& path, const nb::bytes& mountpoint) {
                path.set_mountpoint({mountpoint.c_str(), mountpoint.size()});
            },
            "mountpoint"_a)
        .def("start", &DataPath::start, Released())
        .def("ended_fd", [](const DataPath& path) { return path.state().ending.event(); })
        .def("end_reason", [](const DataPath& path) { return path.state().ending.reason(); })
        .def("install", &install, "nodeid"_a, "extents"_a, "path"_a = "", "presence"_a = nb::none())
        .def("would_serve", &would_serve, "extents"_a, "path"_a = "", Released())
        .def(
            "watch_requests",
            [](DataPath& path, int file) {
                std::vector<std::tuple<std::uint32_t, std::uint64_t, std::uint32_t>> found;
                for (const auto& one : path.watch_requests(file)) {
                    found.emplace_back(one.opcode, one.nodeid, one.deaths);
                }
                return found;
            },
            "file"_a)
        .def("serves", &DataPath::serves, "nodeid"_a, Released())
        .def(
            "take_lock_budget",
            [](DataPath& path, std::size_t bytes) { return path.state().budget->try_take(bytes); },
            "bytes"_a)
        .def(
            "give_lock_budget",
            [](DataPath& path, std::size_t bytes) { path.state().budget->give(bytes); }, "bytes"_a)
        .def(
            "lease_directory",
            [](DataPath& path, std::uint64_t nodeid, int root_fd,
               const std::vector<nb::bytes>& kept) {
                std::set<std::string, std::less<>> paths;
                for (const auto& one : kept) {
                    paths.emplace(one.c_str(), one.size());
                }
                const nb::gil_scoped_release released;
                path.state().leased_nodes.lease(nodeid, zc::DirectorySource::open(root_fd),
                                                std::move(paths));
            },
            "nodeid"_a, "root_fd"_a, "kept"_a = nb::make_tuple())
        .def(
            "refuse_device",
            [](DataPath& path, std::uint32_t major, std::uint32_t minor) {
                path.state().leased_nodes.refuse_device(major, minor);
            },
            "major"_a, "minor"_a)
        .def("revoke_directory", &DataPath::revoke_directory, "nodeid"_a, Released())
        .def(
            "drop_directory",
            [](DataPath& path, std::uint64_t nodeid) { path.state().leased_nodes.drop(nodeid); },
            "nodeid"_a, Released())
        .def("describe", &describe, "nodeid"_a)
        .def("revoke", &DataPath::revoke, "nodeid"_a, Released())
        .def(
            "set_ino",
            [](DataPath& path, std::uint64_t nodeid, std::uint64_t ino) {
                path.state().numbers.set(nodeid, ino);
            },
            "nodeid"_a, "ino"_a)
        .def(
            "drop_inos",
            [](DataPath& path, const std::vector<std::uint64_t>& nodeids) {
                path.state().numbers.drop(nodeids);
            },
            "nodeids"_a)
        .def(
            "push_changes",
            [](DataPath& path, std::uint64_t nodeid, bool strict) {
                return std::string(zc::code_of(path.push_changes(nodeid, strict)));
            },
            "nodeid"_a, "strict"_a, Released())
        .def(
            "freshness",
            [](const DataPath& path, std::uint64_t nodeid) {
                const auto found = path.freshness(nodeid);
                constexpr std::array<const char*, 5> names{"timed", "fixed", "pushed", "strict",
                                                           "names"};
                return found ? names.at(static_cast<std::size_t>(*found)) : "";
            },
            "nodeid"_a, Released())
        .def(
            "sync",
            [](DataPath& path, std::uint32_t wait_ms) {
                return path.sync(std::chrono::milliseconds(wait_ms));
            },
            "wait_ms"_a, Released())
        .def("invalidate_inode", &DataPath::invalidate_inode, "nodeid"_a, "offset"_a, "length"_a,
             Released())
        .def(
            "invalidate_entry",
            [](const DataPath& path, std::uint64_t parent, const nb::bytes& name) {
                const std::string copy(name.c_str(), name.size());
                const nb::gil_scoped_release released;
                return path.invalidate_entry(parent, std::as_bytes(std::span(copy)));
            },
            "parent"_a, "name"_a)
        .def("statistics", &zc::bindings::statistics)
        .def("hot_files", &zc::bindings::hot_files, "most"_a)
        .def(
            "trace", [](DataPath& path, std::size_t most) { path.state().ledger.trace(most); },
            "most"_a, Released())
        .def("drain_trace", &zc::bindings::drain_trace)
        .def_static("operations", &operations)
        .def("expect_end", &DataPath::expect_end)
        .def(
            "stop", [](DataPath& path) { return path.stop(); }, Released())
        .def("leave", &DataPath::leave, Released());
}

}  // namespace

NB_MODULE(_native, module) {
    zc::bindings::add_constants(module);
    bind_presence(module);
    // pyfuse3 keeps the operations, and with them this, in globals that are never cleared.
    nb::set_leak_warnings(false);
    nb::register_exception_translator(translate);
    if (const char* faults = std::getenv("ZCFUSE_FAULTS"); faults != nullptr) {
        if (!zc::sys::arm_faults(faults)) {
            throw nb::value_error("ZCFUSE_FAULTS is not understood");
        }
    }
    bind_config(module);
    auto datapath = bind_datapath(module);
    zc::bindings::add_indexes(datapath);
    zc::bindings::add_sources(module, datapath);
    zc::bindings::add_archives(module, datapath);
    zc::bindings::add_directories(module, datapath);
    zc::bindings::add_layers(module);
    zc::bindings::add_surviving(module, datapath);
    zc::bindings::add_images(module);
    zc::bindings::add_trace(module);
    module.def("upcall_pair", &upcall_pair, "message_bytes"_a);
    module.def(
        "arm_faults", [](const std::string& text) { return zc::sys::arm_faults(text); }, "text"_a);
}
