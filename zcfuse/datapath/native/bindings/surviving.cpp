#include "bindings/surviving.hpp"

#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "serve/surviving/surviving_state.hpp"
#include "sys/syscalls.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace zc::bindings {

namespace {

using State = std::shared_ptr<SurvivingState>;

nb::bytes as_bytes(std::span<const std::byte> from) {
    return nb::bytes(reinterpret_cast<const char*>(from.data()), from.size());
}

std::uint64_t resent(SurvivingState& state) {
    std::uint64_t sum = 0;
    for (const auto count : state.session().resent()) {
        sum += count;
    }
    return sum;
}

std::map<std::string, std::uint64_t> resent_by_operation(SurvivingState& state) {
    std::map<std::string, std::uint64_t> named;
    const auto counts = state.session().resent();
    for (std::uint32_t opcode = 0; opcode < counts.size(); ++opcode) {
        if (counts[opcode] > 0) {
            named.emplace(abi::opcode_name(opcode), counts[opcode]);
        }
    }
    return named;
}

std::vector<std::pair<std::uint64_t, std::string>> roots(SurvivingState& state) {
    std::vector<std::pair<std::uint64_t, std::string>> named;
    for (const auto& root : state.session().roots()) {
        named.emplace_back(root.nodeid, kind_name(static_cast<Source::Kind>(root.kind)));
    }
    return named;
}

nb::list records(SurvivingState& state) {
    nb::list result;
    for (const auto& record : state.journal().records()) {
        result.append(nb::bytes(record.data(), record.size()));
    }
    return result;
}

void replace_records(SurvivingState& state, const std::vector<nb::bytes>& records) {
    std::vector<std::string> copies;
    copies.reserve(records.size());
    for (const auto& record : records) {
        copies.emplace_back(record.c_str(), record.size());
    }
    const nb::gil_scoped_release released;
    state.journal().replace(copies);
}

int clone_device(int fd) {
    sys::UniqueFd clone;
    if (const int error = sys::clone_device(fd, clone); error < 0) {
        throw std::system_error(-error, std::generic_category(), "cloning /dev/fuse");
    }
    return clone.release();
}

void make(DataPath* path, int channel_fd, int upcall_fd, const Config& config, bool device,
          const State& state, const std::vector<int>& clones) {
    if (state) {
        new (path) DataPath(channel_fd, upcall_fd, config, device, state, clones);
    } else {
        new (path) DataPath(channel_fd, upcall_fd, config, device);
    }
}

void connect_holder(DataPath& path, int socket) {
    if (const int error = path.connect_holder(socket); error < 0) {
        throw std::system_error(-error, std::generic_category(), "copying the holder's socket");
    }
}

void resend(const DataPath& path) {
    if (const int error = path.resend(); error < 0) {
        throw std::system_error(-error, std::generic_category(), "asking for requests again");
    }
}

}  // namespace

void add_surviving(nb::module_& module, nb::class_<DataPath>& datapath) {
    nb::class_<SurvivingState>(module, "SurvivingState")
        .def_static("create", [] { return std::make_shared<SurvivingState>(); })
        .def_static(
            "attach",
            [](const std::vector<int>& fds) { return std::make_shared<SurvivingState>(fds); },
            "fds"_a, nb::call_guard<nb::gil_scoped_release>())
        .def_static("layout_of", &SurvivingState::layout_of, "fd"_a)
        .def_ro_static("LAYOUT", &SurvivingState::kLayout)
        .def("fds", &SurvivingState::fds)
        .def_prop_ro("generation",
                     [](SurvivingState& state) { return state.session().generation(); })
        .def_prop_ro("negotiated",
                     [](SurvivingState& state) { return state.session().reply().has_value(); })
        .def_prop_ro("init_request",
                     [](SurvivingState& state) { return as_bytes(state.session().init()); })
        .def_prop_ro("resent", &resent)
        .def("resent_by_operation", &resent_by_operation)
        .def("roots", &roots)
        .def(
            "append",
            [](SurvivingState& state, const nb::bytes& record) {
                state.journal().append({record.c_str(), record.size()});
            },
            "record"_a)
        .def("records", &records)
        .def("replace_records", &replace_records, "records"_a);
    datapath
        .def("__init__", &make, "channel_fd"_a, "upcall_fd"_a, "config"_a, nb::kw_only(),
             "device"_a, "state"_a.none(), "clones"_a = nb::make_tuple())
        .def("connect_holder", &connect_holder, "socket"_a)
        .def("inherit_orphan", &DataPath::inherit_orphan, "nodeid"_a, "file"_a)
        .def("resend", &resend, nb::call_guard<nb::gil_scoped_release>());
    module.attr("ORPHAN_PREFIX") = nb::str(Keeper::kPrefix.data(), Keeper::kPrefix.size());
    module.def("clone_device", &clone_device, "fd"_a);
}

}  // namespace zc::bindings
