#include "bindings/constants.hpp"

#include <nanobind/stl/string.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "holder/messages.hpp"
#include "serve/constants.hpp"
#include "serve/lease.hpp"
#include "serve/mtime.hpp"
#include "serve/reasons.hpp"
#include "serve/sources/blob.hpp"
#include "serve/sources/index_store.hpp"
#include "serve/sources/source.hpp"
#include "serve/suspects.hpp"
#include "serve/workers.hpp"
#include "sys/files.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace zc::bindings {

namespace {

nb::tuple reasons() {
    nb::list codes;
    for (std::size_t i = 1; i < kReasons; ++i) {
        codes.append(std::string(code_of(static_cast<Reason>(i))));
    }
    return nb::tuple(codes);
}

// The values of an enumeration in order, from `first` to `last`.
template <typename Kind>
nb::tuple values(Kind first, Kind last) {
    nb::list numbers;
    for (auto i = static_cast<int>(first); i <= static_cast<int>(last); ++i) {
        numbers.append(i);
    }
    return nb::tuple(numbers);
}

}  // namespace

void add_constants(nb::module_& module) {
    module.attr("REASONS") = reasons();
    module.attr("WHOLE_FILE") = kWholeFile;
    module.attr("OWN_BIT") = kOwnBit;
    module.attr("HOLDER_GO") = holder::kGoFormat;
    module.attr("HOLDER_HANDOVER") = holder::kHandoverFormat;
    module.attr("HOLDER_HANDOVERS") = holder::kHandoversKept;
    module.attr("HOLDER_MESSAGE") = holder::kMessageFormat;
    module.attr("HOLDER_STATE") = holder::kStateFormat;
    module.attr("HOLDER_UNKNOWN") = holder::kUnknownStatus;
    module.attr("IMPLICIT_BIT") = kImplicitBit;
    module.attr("MADE_INO_BIT") = kMadeInoBit;
    module.attr("BLOCK_BYTES") = kBlockBytes;
    module.attr("SECTOR_BYTES") = kSectorBytes;
    module.attr("NAME_BYTES") = kNameBytes;
    module.attr("OPAQUE_NAME") = nb::bytes(kOpaqueName);
    module.attr("WHITEOUT_PREFIX") = nb::bytes(kWhiteoutPrefix.data(), kWhiteoutPrefix.size());
    module.attr("DEPTH_LIMIT") = kDepthLimit;
    module.attr("MESSAGE_BYTES") = kMessageBytes;
    module.attr("MOST_THREADS") = kMostThreads;
    module.attr("MOST_STACK_DEPTH") = kMostStackDepth;
    module.attr("SUSPECTS_BYTES") = Suspects::kBytes;
    module.attr("MOST_DEATHS") = Suspects::kMostDeaths;
    module.attr("MEMBER_KINDS") = values(MemberKind::directory, MemberKind::unreadable);
    module.attr("ENTRY_KINDS") = values(EntryKind::directory, EntryKind::missing);
    module.attr("TERM_KINDS") = values(BlobTerm::Kind::file, BlobTerm::Kind::concat);
    module.def("mixed_ino", &mixed_ino, "device"_a, "ino"_a);
    module.def("tick_ns", &tick_ns, "time_ns"_a);
    module.def("serving_threads", &serving_threads, "wanted"_a);
    module.def("is_local", &sys::is_local, "fd"_a);
}

}  // namespace zc::bindings
