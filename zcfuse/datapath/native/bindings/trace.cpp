#include "bindings/trace.hpp"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <vector>

namespace nb = nanobind;

namespace zc::bindings {

namespace {

// As zcfuse/admin/trace/_events.py unpacks it: "<QQQQIIHBB", then the name.
void append_packed(const Event& event, std::string& into) {
    const auto put = [&into](const auto& value) {
        into.append(reinterpret_cast<const char*>(&value), sizeof value);
    };
    put(event.began_ns);
    put(event.took_ns);
    put(event.nodeid);
    put(event.bytes);
    put(event.pid);
    put(event.uid);
    put(event.opcode);
    put(event.way);
    put(event.name_bytes);
    into.append(event.called());
}

}  // namespace

nb::tuple drain_trace(const DataPath& path) {
    const auto& state = path.state();
    std::string packed;
    std::uint64_t lost = 0;
    std::unordered_map<std::uint64_t, Mirrors::Place> places;
    {
        const nb::gil_scoped_release released;
        std::vector<Event> events;
        state.ledger.settle();
        lost = state.ledger.drain(events);
        // An event has 300 bytes, so their order is made of pointers.
        std::vector<const Event*> order;
        order.reserve(events.size());
        for (const auto& event : events) {
            order.push_back(&event);
        }
        std::sort(order.begin(), order.end(),
                  [](const Event* a, const Event* b) { return a->began_ns < b->began_ns; });
        for (const auto* next : order) {
            const auto& event = *next;
            append_packed(event, packed);
            if (!places.contains(event.nodeid)) {
                const auto place = is_own(event.nodeid) ? state.mirrors.place_of(event.nodeid)
                                                        : Mirrors::Place{event.nodeid, {}};
                places.emplace(event.nodeid, place.value_or(Mirrors::Place{}));
            }
        }
    }
    nb::list named;
    for (const auto& [nodeid, place] : places) {
        named.append(
            nb::make_tuple(nodeid, place.root, nb::bytes(place.path.data(), place.path.size())));
    }
    return nb::make_tuple(nb::bytes(packed.data(), packed.size()), lost, named);
}

}  // namespace zc::bindings
