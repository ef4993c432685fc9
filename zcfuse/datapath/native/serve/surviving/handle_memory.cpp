#include "serve/surviving/handle_memory.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <unordered_set>
#include <utility>

#include "serve/constants.hpp"

namespace zc {

namespace {

constexpr std::uint64_t kMagic = 0x7A63'6861'6E64'6C01;  // "zchandl"
constexpr auto kName = "the table of open files";
constexpr unsigned kSlotBits = 22;  // of a handle's number
constexpr std::uint32_t kMostBackings = 1 << 20;

std::uint32_t check_of(const HandleMemory::Handle& handle) noexcept {
    return static_cast<std::uint32_t>(
        mixed(handle.number ^ mixed(handle.nodeid ^ mixed(handle.unique ^ handle.uid) ^
                                    (std::uint64_t{handle.writes} << 32) ^
                                    static_cast<std::uint32_t>(handle.backing_id))));
}

constexpr std::uint32_t slot_of(std::uint64_t number) noexcept {
    return static_cast<std::uint32_t>(number & ((1U << kSlotBits) - 1));
}

}  // namespace

struct HandleLayout {
    std::uint64_t magic;
    std::uint64_t last;      // of a handle, without its slot
    std::uint32_t slots;     // in use or free
    std::uint32_t backings;  // places in use or free
    std::array<HandleMemory::Handle, HandleMemory::kMost> handle;
    std::array<std::int32_t, kMostBackings> backing;  // 0: a free place
};

HandleMemory::HandleMemory() : SurvivingTable("zcfuse-handles", kMagic) {}

HandleMemory::HandleMemory(sys::UniqueFd fd) : SurvivingTable(std::move(fd), kMagic, kName) {
    if (at().slots > kMost || at().backings > kMostBackings) {
        throw damaged(kName, "its header");
    }
    for (std::uint32_t slot = at().slots; slot-- > 0;) {
        const auto& handle = at().handle[slot];
        if (handle.number == 0) {
            free_.push_back(slot);
            continue;
        }
        if (handle.check != check_of(handle) || slot_of(handle.number) != slot) {
            throw damaged(kName, "handle " + std::to_string(handle.number));
        }
        if (handle.unique != 0) {
            doubtful_.emplace(handle.unique, handle.number);
        }
    }
    for (std::uint32_t place = at().backings; place-- > 0;) {
        if (const int id = at().backing[place]; id != 0) {
            backings_.emplace(id, place);
        } else {
            free_backings_.push_back(place);
        }
    }
}

std::uint64_t HandleMemory::open(Handle handle) {
    const std::lock_guard guard(lock_);
    std::uint32_t slot = at().slots;
    if (!free_.empty()) {
        slot = free_.back();
        free_.pop_back();
    } else if (slot == kMost) {
        return 0;
    } else {
        publish(at().slots, slot + 1);
    }
    publish(at().last, at().last + 1);
    handle.number = kOwnBit | at().last << kSlotBits | slot;
    handle.check = check_of(handle);
    auto& into = at().handle[slot];
    into.nodeid = handle.nodeid;
    into.unique = handle.unique;
    into.uid = handle.uid;
    into.backing_id = handle.backing_id;
    into.writes = handle.writes;
    into.check = handle.check;
    publish(into.number, handle.number);
    return handle.number;
}

void HandleMemory::release_slot(std::uint32_t slot) noexcept {
    publish(at().handle[slot].number, std::uint64_t{0});
    free_.push_back(slot);
}

std::optional<HandleMemory::Handle> HandleMemory::close(std::uint64_t number) {
    const std::lock_guard guard(lock_);
    const auto slot = slot_of(number);
    if (number == 0 || slot >= at().slots || at().handle[slot].number != number) {
        return std::nullopt;
    }
    const auto handle = at().handle[slot];
    release_slot(slot);
    if (const auto found = doubtful_.find(handle.unique);
        found != doubtful_.end() && found->second == number) {
        doubtful_.erase(found);
    }
    return handle;
}

std::optional<HandleMemory::Handle> HandleMemory::take(std::uint64_t unique) {
    const std::lock_guard guard(lock_);
    const auto found = doubtful_.find(unique);
    if (found == doubtful_.end()) {
        return std::nullopt;
    }
    const auto slot = slot_of(found->second);
    doubtful_.erase(found);
    const auto handle = at().handle[slot];
    release_slot(slot);
    return handle;
}

std::vector<HandleMemory::Handle> HandleMemory::all() const {
    const std::lock_guard guard(lock_);
    std::vector<Handle> handles;
    for (std::uint32_t slot = 0; slot < at().slots; ++slot) {
        if (at().handle[slot].number != 0) {
            handles.push_back(at().handle[slot]);
        }
    }
    return handles;
}

void HandleMemory::register_backing(int id) {
    const std::lock_guard guard(lock_);
    if (backings_.contains(id)) {
        return;
    }
    std::uint32_t place = at().backings;
    if (!free_backings_.empty()) {
        place = free_backings_.back();
        free_backings_.pop_back();
    } else if (place == kMostBackings) {
        return;
    } else {
        publish(at().backings, place + 1);
    }
    publish(at().backing[place], id);
    backings_[id] = place;
}

void HandleMemory::unregister_backing(int id) noexcept {
    const std::lock_guard guard(lock_);
    if (const auto found = backings_.find(id); found != backings_.end()) {
        publish(at().backing[found->second], 0);
        free_backings_.push_back(found->second);
        backings_.erase(found);
    }
}

std::vector<int> HandleMemory::stray_backings() const {
    std::unordered_set<int> used;
    for (const auto& handle : all()) {
        used.insert(handle.backing_id);
    }
    std::vector<int> stray;
    const std::lock_guard guard(lock_);
    for (const auto& [id, place] : backings_) {
        if (!used.contains(id)) {
            stray.push_back(id);
        }
    }
    return stray;
}

}  // namespace zc
