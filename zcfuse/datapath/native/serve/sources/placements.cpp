#include "serve/sources/placements.hpp"

#include <cstddef>
#include <utility>

#include "sys/files.hpp"

namespace zc {

namespace {

// A client can make any number of directories and names; those that go are asked for again.
constexpr std::size_t kMostLeased = 1 << 16;
constexpr std::size_t kMostDecided = 1 << 10;

template <typename Map>
void make_room(Map& map, std::size_t most) {
    if (map.size() >= most) {
        map.clear();
    }
}

}  // namespace

void Placements::lease(const Identity& directory, std::uint32_t branch,
                       std::optional<Milliseconds> valid) {
    const auto now = sys::coarse_milliseconds();
    const std::lock_guard guard(lock_);
    make_room(leased_, kMostLeased);
    leased_.insert_or_assign(directory,
                             Leased{branch, valid ? std::optional(now + *valid) : std::nullopt});
}

void Placements::decide(const Identity& directory, std::string name, std::uint32_t branch) {
    const std::lock_guard guard(lock_);
    make_room(decided_, kMostDecided);
    decided_.insert_or_assign({directory, std::move(name)}, branch);
}

void Placements::forget() {
    const std::lock_guard guard(lock_);
    leased_.clear();
}

std::optional<std::uint32_t> Placements::take(const Identity& directory, const std::string& name) {
    const auto now = sys::coarse_milliseconds();
    const std::lock_guard guard(lock_);
    if (const auto found = leased_.find(directory); found != leased_.end()) {
        if (!found->second.until || now < *found->second.until) {
            return found->second.branch;
        }
        leased_.erase(found);
    }
    const auto found = decided_.find({directory, name});
    if (found == decided_.end()) {
        return std::nullopt;
    }
    const auto branch = found->second;
    decided_.erase(found);
    return branch;
}

}  // namespace zc
