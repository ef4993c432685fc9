#include "serve/hot_files.hpp"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

namespace zc {

namespace {

void add(FileUse& to, const FileUse& more) noexcept {
    to.opens += more.opens;
    to.reads += more.reads;
    to.bytes += more.bytes;
}

}  // namespace

HotFiles::HotFiles(std::size_t places, IsOpen is_open)
    : sets_(std::bit_ceil(std::max<std::size_t>((places + kWays - 1) / kWays, 1))),
      is_open_(std::move(is_open)) {}

// Nodeids are counted up, in steps of a power of two (nodes/table.hpp): spread by the golden ratio.
HotFiles::Set& HotFiles::set_of(std::uint64_t nodeid) noexcept {
    const auto spread = (nodeid * 0x9E37'79B9'7F4A'7C15ULL) >> 32;
    return sets_[static_cast<std::size_t>(spread) & (sets_.size() - 1)];
}

HotFiles::Slot& HotFiles::slot_of(Set& set, std::uint64_t nodeid) noexcept {
    const auto own = std::find_if(set.begin(), set.end(),
                                  [nodeid](const Slot& slot) { return slot.nodeid == nodeid; });
    if (own != set.end()) {
        return *own;
    }
    auto& least = *std::min_element(
        set.begin(), set.end(), [](const Slot& a, const Slot& b) { return a.weight < b.weight; });
    displace(least);
    least.nodeid = nodeid;
    least.use = {};
    if (const auto kept = displaced_.find(nodeid); kept != displaced_.end()) {
        least.use = kept->second;
        displaced_.erase(kept);
    }
    return least;
}

// Without memory the file's counts are lost, as those of a closed file are.
void HotFiles::displace(const Slot& slot) noexcept {
    if (!is_open_ || slot.nodeid == 0) {
        return;
    }
    try {
        zc::add(displaced_[slot.nodeid], slot.use);
    } catch (const std::bad_alloc&) {
    }
}

// Only this thread changes what it reads here without the lock.
void HotFiles::drop_closed() noexcept {
    try {
        std::vector<std::uint64_t> closed;
        for (const auto& [nodeid, use] : displaced_) {
            if (!is_open_(nodeid)) {
                closed.push_back(nodeid);
            }
        }
        const std::lock_guard guard(lock_);
        for (const auto nodeid : closed) {
            displaced_.erase(nodeid);
        }
    } catch (const std::bad_alloc&) {
        const std::lock_guard guard(lock_);
        displaced_.clear();
    }
    most_displaced_ = std::max(kPlaces, 2 * displaced_.size());
}

void HotFiles::add(std::uint64_t nodeid, const FileUse& more) noexcept {
    auto& set = set_of(nodeid);
    {
        const std::lock_guard guard(lock_);
        auto& slot = slot_of(set, nodeid);
        slot.weight += more.requests();
        zc::add(slot.use, more);
    }
    if (displaced_.size() > most_displaced_) {
        drop_closed();
    }
}

void HotFiles::add_to(Uses& uses) const {
    const auto [copy, displaced] = [this] {
        const std::lock_guard guard(lock_);
        return std::pair(sets_, displaced_);
    }();
    for (const auto& [nodeid, use] : displaced) {
        zc::add(uses[nodeid], use);
    }
    for (const auto& set : copy) {
        for (const auto& slot : set) {
            if (slot.nodeid != 0) {
                zc::add(uses[slot.nodeid], slot.use);
            }
        }
    }
}

}  // namespace zc
