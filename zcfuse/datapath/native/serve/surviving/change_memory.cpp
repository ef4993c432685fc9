#include "serve/surviving/change_memory.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace zc {

namespace {

constexpr std::uint64_t kMagic = 0x7A63'6368'616E'6701;  // "zcchang"
constexpr auto kName = "the table of changes";
// A process has one change under way for each of its threads, so these are of several processes.
constexpr std::size_t kMostInherited = 1024;

std::uint64_t sum_of(const ChangeMemory::Place& place) noexcept {
    std::uint64_t sum = mixed(place.parent ^ mixed(hash_of(place.before)));
    for (const char byte : place.name) {
        sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100'0000'01B3;
    }
    return sum;
}

std::uint64_t check_of(const ChangeMemory::Change& change) noexcept {
    const auto kind = std::uint64_t{change.opcode} << 32 | change.flags;
    return mixed(change.unique ^
                 mixed(kind ^ mixed(sum_of(change.from) ^ mixed(sum_of(change.to)))));
}

}  // namespace

struct ChangeLayout {
    struct Record {
        ChangeMemory::Change change;
        std::uint64_t check;
    };
    std::uint64_t magic;
    std::array<Record, ChangeMemory::kMost> record;
};

ChangeMemory::ChangeMemory() : SurvivingTable("zcfuse-changes", kMagic) {
    for (std::uint32_t place = kMost; place-- > 0;) {
        free_.push_back(place);
    }
}

ChangeMemory::ChangeMemory(sys::UniqueFd fd) : SurvivingTable(std::move(fd), kMagic, kName) {
    std::vector<std::pair<std::uint64_t, std::uint32_t>> found;
    for (std::uint32_t place = kMost; place-- > 0;) {
        const auto& [change, check] = at().record[place];
        if (change.unique == 0) {
            free_.push_back(place);
            continue;
        }
        if (check != check_of(change)) {
            throw damaged(kName, "request " + std::to_string(change.unique));
        }
        found.emplace_back(change.unique, place);
    }
    std::sort(found.rbegin(), found.rend());  // the kernel counts `unique` up
    for (const auto& [unique, place] : found) {
        if (places_.size() < kMostInherited) {
            places_.emplace(unique, place);
            inherited_.insert(unique);
        } else {
            publish(at().record[place].change.unique, std::uint64_t{0});
            free_.push_back(place);
        }
    }
}

void ChangeMemory::begin(const Change& change) {
    const std::lock_guard guard(lock_);
    if (free_.empty() || places_.contains(change.unique)) {
        return;
    }
    const auto place = free_.back();
    places_.emplace(change.unique, place);
    free_.pop_back();
    auto& into = at().record[place];
    into.check = check_of(change);
    into.change.opcode = change.opcode;
    into.change.flags = change.flags;
    into.change.from = change.from;
    into.change.to = change.to;
    publish(into.change.unique, change.unique);
}

void ChangeMemory::end(std::uint64_t unique) {
    const std::lock_guard guard(lock_);
    if (const auto found = places_.find(unique); found != places_.end()) {
        publish(at().record[found->second].change.unique, std::uint64_t{0});
        free_.push_back(found->second);
        places_.erase(found);
        inherited_.erase(unique);
    }
}

std::optional<ChangeMemory::Change> ChangeMemory::inherited(std::uint64_t unique) const {
    const std::lock_guard guard(lock_);
    if (!inherited_.contains(unique)) {
        return std::nullopt;
    }
    return at().record[places_.at(unique)].change;
}

std::vector<ChangeMemory::Change> ChangeMemory::inherited() const {
    const std::lock_guard guard(lock_);
    std::vector<Change> changes;
    for (const auto unique : inherited_) {
        changes.push_back(at().record[places_.at(unique)].change);
    }
    return changes;
}

}  // namespace zc
