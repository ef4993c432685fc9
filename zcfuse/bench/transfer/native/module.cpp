// The only place that sees Python. It releases the GIL while the bytes move.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>

#include "latency.hpp"
#include "meter.hpp"
#include "method.hpp"
#include "resources.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace zc::transfer {
namespace {

using Maker = std::unique_ptr<Method> (*)(const Job&);
constexpr std::array<std::pair<std::string_view, Maker>, 11> kMethods{{
    {"read+write", read_write},
    {"mmap+write", mmap_write},
    {"sendfile", sendfile},
    {"splice", splice},
    {"splice-move", splice_move},
    {"uring-splice", uring_splice},
    {"uring-fixed", uring_fixed},
    {"zerocopy-send", zerocopy_send},
    {"vmsplice", vmsplice},
    {"direct+write", direct_read},
    {"copy-file-range", copy_file_range},
}};

Maker maker_of(std::string_view name) {
    for (const auto& [known, maker] : kMethods) {
        if (known == name) {
            return maker;
        }
    }
    throw nb::value_error(("no method is called " + std::string(name)).c_str());
}

SinkKind kind_of(std::string_view name) {
    if (name == "null") {
        return SinkKind::null_device;
    }
    return name == "file" ? SinkKind::file : SinkKind::socket;
}

// The receiver reports its byte count at the end of the stream; only then is the delivery complete.
std::uint64_t acknowledged(int socket) {
    granted("shutdown", [&] { return ::shutdown(socket, SHUT_WR); });
    std::uint64_t received = 0;
    const std::size_t count =
        granted("recv", [&] { return ::recv(socket, &received, sizeof received, MSG_WAITALL); });
    if (count != sizeof received) {
        refuse(EPIPE, "the receiver's answer");
    }
    return received;
}

nb::dict to_dict(const Tally& tally, const Cost& cost) {
    nb::dict result;
    result["note"] = tally.note;
    const std::pair<const char*, std::uint64_t> numbers[] = {
        {"delivered", tally.delivered},
        {"copied_in", tally.copied_in},
        {"copied_out", tally.copied_out},
        {"copied_late", tally.copied_late},
        {"copied_inside", tally.copied_inside},
        {"calls", tally.calls},
        {"ns", cost.ns},
        {"cpu_ns", cost.cpu_ns},
        {"minor_faults", cost.minor_faults},
        {"major_faults", cost.major_faults},
        {"voluntary_switches", cost.voluntary_switches},
        {"involuntary_switches", cost.involuntary_switches},
        {"rchar", cost.rchar},
        {"wchar", cost.wchar},
        {"resident_before", cost.resident_before},
        {"resident_peak", cost.resident_peak},
    };
    for (const auto& [name, number] : numbers) {
        result[name] = number;
    }
    return result;
}

nb::dict transfer(const std::string& method, const std::string& path, int sink,
                  const std::string& kind, std::uint64_t size, std::size_t block) {
    const Maker maker = maker_of(method);
    const Job job{path, sink, kind_of(kind), size, block};
    Tally tally;
    Cost cost;
    {
        const nb::gil_scoped_release released;
        const auto made = maker(job);
        const Meter meter;
        made->run(tally);
        if (job.kind == SinkKind::socket) {
            tally.delivered = acknowledged(sink);
        }
        cost = meter.stop();
    }
    return to_dict(tally, cost);
}

nb::dict measure_latency(const std::string& path, std::uint64_t pages, bool mapped, bool prefaulted,
                         std::uint64_t seed) {
    Latency found;
    {
        const nb::gil_scoped_release released;
        found = latency({path, pages, mapped, prefaulted, seed});
    }
    nb::dict result;
    result["reads"] = found.reads;
    result["p50_ns"] = found.p50_ns;
    result["p99_ns"] = found.p99_ns;
    result["p999_ns"] = found.p999_ns;
    result["max_ns"] = found.max_ns;
    result["minor_faults"] = found.minor_faults;
    result["major_faults"] = found.major_faults;
    return result;
}

void translate(const std::exception_ptr& thrown, void*) {
    try {
        std::rethrow_exception(thrown);
    } catch (const std::system_error& error) {
        PyErr_SetObject(PyExc_OSError, nb::make_tuple(error.code().value(), error.what()).ptr());
    }
}

}  // namespace
}  // namespace zc::transfer

NB_MODULE(_transfer_native, module) {
    nb::register_exception_translator(zc::transfer::translate);
    std::vector<std::string> names;
    for (const auto& [name, maker] : zc::transfer::kMethods) {
        names.emplace_back(name);
    }
    module.attr("METHODS") = nb::tuple(nb::cast(names));
    module.def("transfer", &zc::transfer::transfer, "method"_a, "path"_a, "sink"_a, "kind"_a,
               "size"_a, "block"_a);
    module.def("latency", &zc::transfer::measure_latency, "path"_a, "pages"_a, "mapped"_a,
               "prefaulted"_a, "seed"_a);
}
