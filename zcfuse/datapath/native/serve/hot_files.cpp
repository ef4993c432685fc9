#include "serve/hot_files.hpp"

#include <algorithm>
#include <bit>

namespace zc {

namespace {

void add(FileUse& to, const FileUse& more) noexcept {
    to.opens += more.opens;
    to.reads += more.reads;
    to.bytes += more.bytes;
}

}  // namespace

HotFiles::HotFiles(std::size_t places)
    : sets_(std::bit_ceil(std::max<std::size_t>((places + kWays - 1) / kWays, 1))) {}

// Nodeids are counted up, in steps of a power of two (nodes/table.hpp): spread by the golden ratio.
HotFiles::Set& HotFiles::set_of(std::uint64_t nodeid) noexcept {
    const auto spread = (nodeid * 0x9E37'79B9'7F4A'7C15ULL) >> 32;
    return sets_[static_cast<std::size_t>(spread) & (sets_.size() - 1)];
}

HotFiles::Place& HotFiles::place_of(Set& set, std::uint64_t nodeid) noexcept {
    const auto own = std::find_if(set.begin(), set.end(),
                                  [nodeid](const Place& place) { return place.nodeid == nodeid; });
    if (own != set.end()) {
        return *own;
    }
    auto& least = *std::min_element(
        set.begin(), set.end(), [](const Place& a, const Place& b) { return a.weight < b.weight; });
    least.nodeid = nodeid;
    least.use = {};
    return least;
}

void HotFiles::add(std::uint64_t nodeid, const FileUse& more) noexcept {
    auto& set = set_of(nodeid);
    const std::lock_guard guard(lock_);
    auto& place = place_of(set, nodeid);
    place.weight += more.requests();
    zc::add(place.use, more);
}

void HotFiles::add_to(Uses& uses) const {
    const auto copy = [this] {
        const std::lock_guard guard(lock_);
        return sets_;
    }();
    for (const auto& set : copy) {
        for (const auto& place : set) {
            if (place.nodeid != 0) {
                zc::add(uses[place.nodeid], place.use);
            }
        }
    }
}

}  // namespace zc
