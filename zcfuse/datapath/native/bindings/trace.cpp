#include "bindings/trace.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <ctime>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace nb = nanobind;
using namespace nb::literals;

namespace zc::bindings {

namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::array<std::string_view, 7> kWays{"",       "upcall",      "pool",  "mmap",
                                                "splice", "passthrough", "cached"};

std::span<const std::byte> bytes_of(const nb::bytes& value) {
    return std::as_bytes(std::span(value.c_str(), value.size()));
}

nb::bytes as_bytes(const std::string& text) {
    return nb::bytes(text.data(), text.size());
}

// A node's path begins at a leased directory; its bytes follow.
struct PackedPlace {
    std::uint64_t nodeid = 0;
    std::uint64_t root = 0;
    std::uint64_t length = 0;
};

template <typename Value>
void append(const Value& value, std::string& into) {
    into.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// The paths of nodes, from the root of the mount.
using Paths = std::unordered_map<std::uint64_t, std::string>;

Paths paths_of(std::span<const std::byte> packed, const nb::dict& roots) {
    std::unordered_map<std::uint64_t, std::string> above;
    for (const auto& [root, path] : roots) {
        const auto text = nb::cast<nb::bytes>(path);
        above.emplace(nb::cast<std::uint64_t>(root), std::string(text.c_str(), text.size()));
    }
    Paths paths;
    while (packed.size() >= sizeof(PackedPlace)) {
        PackedPlace place;
        std::memcpy(&place, packed.data(), sizeof place);
        packed = packed.subspan(sizeof place);
        const auto length = std::min<std::size_t>(place.length, packed.size());
        const std::string_view below(reinterpret_cast<const char*>(packed.data()), length);
        packed = packed.subspan(length);
        if (const auto root = above.find(place.root); root != above.end()) {
            auto path = root->second;
            path.append(path.empty() || below.empty() ? "" : "/").append(below);
            paths.emplace(place.nodeid, std::move(path));
        }
    }
    return paths;
}

// Takes packed events one by one; ends where they are damaged.
template <typename Each>
void each_event(std::span<const std::byte> packed, Each each) {
    while (packed.size() >= sizeof(Event)) {
        Event first;
        std::memcpy(&first, packed.data(), sizeof first);
        if (packed.size() < sizeof first + first.name_bytes) {
            return;
        }
        std::string_view name;
        const auto event = Events::take(packed, name);
        each(event, name);
    }
}

std::optional<std::string> path_of(const Paths& paths, const Event& event, std::string_view name) {
    const auto node = paths.find(event.nodeid);
    if (node == paths.end()) {
        return {};
    }
    std::string path(node->second);
    path.append(path.empty() || name.empty() ? "" : "/").append(name);
    return path;
}

std::string_view way_name(const Event& event) {
    const auto way = static_cast<std::size_t>(event.way);
    return way < kWays.size() ? kWays[way] : "";
}

std::string_view operation_of(const std::vector<std::string>& names, const Event& event) {
    return names.empty() ? std::string_view()
                         : std::string_view(names[event.opcode < names.size() ? event.opcode : 0]);
}

// The length of the UTF-8 character at the start; 0 if there is none.
std::size_t character(std::string_view text) noexcept {
    const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
    const unsigned first = byte(0);
    const std::size_t length = first < 0x80                    ? 1
                               : first >= 0xC2 && first < 0xE0 ? 2
                               : first >= 0xE0 && first < 0xF0 ? 3
                               : first >= 0xF0 && first < 0xF5 ? 4
                                                               : 0;
    if (length == 0 || length > text.size()) {
        return 0;
    }
    for (std::size_t at = 1; at < length; ++at) {
        if ((byte(at) & 0xC0) != 0x80) {
            return 0;
        }
    }
    const unsigned second = length > 2 ? byte(1) : 0x80;
    const bool refused = (first == 0xE0 && second < 0xA0) || (first == 0xED && second >= 0xA0) ||
                         (first == 0xF0 && second < 0x90) || (first == 0xF4 && second >= 0x90);
    return refused ? 0 : length;
}

void append_hex(unsigned value, int digits, std::string& into) {
    for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) {
        into += "0123456789abcdef"[(value >> shift) & 0xF];
    }
}

// JSON has text only: a byte that is none becomes the surrogate that Python makes of it.
void append_json(std::string_view text, std::string& into) {
    into += '"';
    while (!text.empty()) {
        const auto length = character(text);
        const auto first = static_cast<unsigned char>(text.front());
        if (length == 0) {
            into += "\\udc";
            append_hex(first, 2, into);
        } else if (first == '"' || first == '\\') {
            (into += '\\') += text.front();
        } else if (first < 0x20) {
            into += "\\u";
            append_hex(first, 4, into);
        } else {
            into += text.substr(0, length);
        }
        text.remove_prefix(std::max<std::size_t>(length, 1));
    }
    into += '"';
}

void append_text(std::string_view text, std::string& into) {
    while (!text.empty()) {
        const auto length = character(text);
        if (length == 0) {
            into += "\\x";
            append_hex(static_cast<unsigned char>(text.front()), 2, into);
        } else if (text.front() == '\n') {
            into += "\\n";
        } else {
            into += text.substr(0, length);
        }
        text.remove_prefix(std::max<std::size_t>(length, 1));
    }
}

void append_number(std::uint64_t value, std::string& into, std::size_t width = 0, char fill = ' ') {
    std::array<char, 24> digits{};
    const auto end = std::to_chars(digits.begin(), digits.end(), value).ptr;
    const auto length = static_cast<std::size_t>(end - digits.begin());
    into.append(width > length ? width - length : 0, fill).append(digits.data(), length);
}

void append_padded(std::string_view text, std::size_t width, std::string& into) {
    into.append(text).append(width > text.size() ? width - text.size() : 0, ' ');
}

// One line for each event.
class Lines {
  public:
    explicit Lines(const std::vector<std::string>& operations) : operations_(operations) {}

    void add_json(const Event& event, const std::optional<std::string>& path, std::uint64_t lost) {
        const auto field = [this](std::string_view name, std::uint64_t value) {
            (out += ",\"").append(name).append("\":");
            append_number(value, out);
        };
        out += "{\"time_ns\":";
        append_number(event.began_ns, out);
        field("pid", event.pid);
        field("uid", event.uid);
        out += ",\"operation\":";
        append_json(operation_of(operations_, event), out);
        out += ",\"path\":";
        path ? append_json(*path, out) : void(out += "null");
        field("bytes", event.bytes);
        out += ",\"served\":";
        append_json(way_name(event), out);
        field("latency_ns", event.took_ns);
        field("lost", lost);
        out += "}\n";
    }

    void add_text(const Event& event, const std::optional<std::string>& path) {
        out += clock(event.began_ns / kSecond);
        out += '.';
        append_number(event.began_ns % kSecond / 1000, out, 6, '0');
        out += ' ';
        append_number(event.pid, out, 7);
        out += ' ';
        append_number(event.uid, out, 5);
        out += ' ';
        append_padded(operation_of(operations_, event), 12, out);
        out += ' ';
        const auto way = way_name(event);
        append_padded(way.empty() ? "-" : way, 11, out);
        out += ' ';
        append_number(event.bytes, out, 10);
        out += ' ';
        append_number(event.took_ns / 1000, out, 7);
        out += '.';
        append_number(event.took_ns % 1000 / 100, out);
        out += ' ';
        append_text(!path ? "?" : path->empty() ? "/" : std::string_view(*path), out);
        out += '\n';
    }

    std::string out;

  private:
    const std::string& clock(std::uint64_t second) {
        if (second != second_) {
            const auto time = static_cast<std::time_t>(second);
            std::tm local{};
            std::array<char, 16> text{};
            ::localtime_r(&time, &local);
            clock_.assign(text.data(), std::strftime(text.data(), text.size(), "%H:%M:%S", &local));
            second_ = second;
        }
        return clock_;
    }

    const std::vector<std::string>& operations_;
    std::uint64_t second_ = ~std::uint64_t{0};  // none
    std::string clock_;
};

nb::tuple trace_lines(const nb::bytes& packed, const nb::bytes& places, const nb::dict& roots,
                      const std::vector<std::string>& operations, std::uint64_t lost, bool json) {
    const auto paths = paths_of(bytes_of(places), roots);
    Lines lines(operations);
    std::uint64_t count = 0;
    each_event(bytes_of(packed), [&](const Event& event, std::string_view name) {
        const auto path = path_of(paths, event, name);
        json ? lines.add_json(event, path, count == 0 ? lost : 0) : lines.add_text(event, path);
        ++count;
    });
    return nb::make_tuple(as_bytes(lines.out), count);
}

// Each file that an event of one of the operations names, once; None for those without a path.
nb::tuple traced_files(const nb::bytes& packed, const nb::bytes& places, const nb::dict& roots,
                       const std::vector<std::string>& operations,
                       const std::vector<std::string>& wanted) {
    const auto paths = paths_of(bytes_of(places), roots);
    std::unordered_set<std::string> seen;
    nb::list files;
    std::uint64_t count = 0;
    std::uint64_t unnamed = 0;
    each_event(bytes_of(packed), [&](const Event& event, std::string_view name) {
        ++count;
        const auto operation = operation_of(operations, event);
        if (std::find(wanted.begin(), wanted.end(), operation) == wanted.end()) {
            return;
        }
        auto path = path_of(paths, event, name);
        if (!path) {
            ++unnamed;
        } else if (seen.insert(*path).second) {
            files.append(as_bytes(*path));
        }
    });
    return nb::make_tuple(files, unnamed, count);
}

// All events of the threads in the order of their times, which are those of the epoch now.
std::string in_order(const std::vector<Events>& noted) {
    struct Place {
        Event event;
        std::string_view name;
    };
    const auto since = [](auto now) {
        return static_cast<std::uint64_t>(
            std::chrono::duration_cast<std::chrono::nanoseconds>(now.time_since_epoch()).count());
    };
    const auto ahead = since(std::chrono::system_clock::now()) - since(Clock::now());
    std::vector<Place> order;
    std::size_t size = 0;
    for (const auto& thread : noted) {
        size += thread.used;
    }
    order.reserve(size / sizeof(Event));
    const auto earlier = [](const Place& a, const Place& b) {
        return a.event.began_ns < b.event.began_ns;
    };
    for (const auto& thread : noted) {
        const auto before = static_cast<std::ptrdiff_t>(order.size());
        auto left = thread.all();
        while (!left.empty()) {
            Place place;
            place.event = Events::take(left, place.name);
            place.event.began_ns += ahead;
            order.push_back(place);
        }
        // A thread notes its events in order, but for those that others began.
        const auto first = order.begin() + before;
        if (!std::is_sorted(first, order.end(), earlier)) {
            std::sort(first, order.end(), earlier);
        }
        std::inplace_merge(order.begin(), first, order.end(), earlier);
    }
    std::string packed;
    packed.reserve(size);
    for (const auto& place : order) {
        append(place.event, packed);
        packed.append(place.name);
    }
    return packed;
}

}  // namespace

nb::tuple drain_trace(const DataPath& path) {
    const auto& state = path.state();
    std::string packed;
    std::string places;
    std::uint64_t lost = 0;
    std::set<std::uint64_t> roots;
    {
        const nb::gil_scoped_release released;
        std::vector<Events> noted;
        state.ledger.settle();
        lost = state.ledger.drain(noted);
        packed = in_order(noted);
        std::unordered_set<std::uint64_t> known;
        known.reserve(packed.size() / sizeof(Event));
        each_event(std::as_bytes(std::span(packed)), [&](const Event& event, std::string_view) {
            if (!known.insert(event.nodeid).second) {
                return;
            }
            const auto place = is_own(event.nodeid) ? state.leased_nodes.place_of(event.nodeid)
                                                    : LeasedNodes::Path{event.nodeid, {}};
            if (place) {
                append(PackedPlace{event.nodeid, place->root, place->path.size()}, places);
                places.append(place->path);
                roots.insert(place->root);
            }
        });
    }
    nb::list numbers;
    for (const auto root : roots) {
        numbers.append(root);
    }
    return nb::make_tuple(as_bytes(packed), lost, as_bytes(places), numbers);
}

void add_trace(nb::module_& module) {
    module.def("trace_lines", &trace_lines, "packed"_a, "places"_a, "roots"_a, "operations"_a,
               "lost"_a, "json"_a);
    module.def("traced_files", &traced_files, "packed"_a, "places"_a, "roots"_a, "operations"_a,
               "wanted"_a);
}

}  // namespace zc::bindings
