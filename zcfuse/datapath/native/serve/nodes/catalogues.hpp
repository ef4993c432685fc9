// The catalogues that are leased, by the node that shows each as a directory.
//
// Below it nodeids need no table: one is the catalogue's number and the node's. Lookups of them are
// not counted and a FORGET frees nothing, since numbers are never used again. Only control, which
// was told of a node by describe(), hears of its end.
//
// Threads: any. The lock is innermost; catalogues are destroyed outside of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "serve/nodes/catalogue.hpp"
#include "serve/nodes/table.hpp"

namespace zc {

// With kOwnBit marks a nodeid as one of a catalogue; by itself, the handle of its directories.
inline constexpr std::uint64_t kCatalogueBit = std::uint64_t{1} << 61;
inline constexpr std::uint64_t kCatalogueHandle = kOwnBit | kCatalogueBit;
inline constexpr bool is_catalogued(std::uint64_t nodeid) noexcept {
    return (nodeid & kCatalogueHandle) == kCatalogueHandle;
}

class Catalogues {
  public:
    // Whether there is none: one load, for what comes with every request.
    bool none() const noexcept { return !any_.load(std::memory_order_acquire); }

    // Throws std::system_error where 500 million have been leased.
    void lease(std::uint64_t nodeid, std::shared_ptr<const Catalogue> catalogue);
    // Each returns false for a node that is not leased. What was revoked is handed up.
    bool revoke(std::uint64_t nodeid);
    void drop(std::uint64_t nodeid);
    void clear();

    struct Place {
        std::shared_ptr<const Catalogue> catalogue;
        std::uint64_t root = 0;  // control's nodeid
        std::uint32_t number = 0;
        std::uint32_t node = 0;
        bool revoked = false;

        std::uint64_t nodeid_of(std::uint32_t other) const noexcept {
            return kCatalogueHandle | std::uint64_t{number} << 32 | other;
        }
    };
    // What a nodeid stands for; nothing for one that is not of a catalogue.
    std::optional<Place> find(std::uint64_t nodeid) const;
    // The names in the directory of a catalogue.
    std::vector<std::string> names_in(std::uint64_t nodeid) const;
    // Notes that control knows the node: was_described() says so once, at its end.
    void describe(std::uint64_t nodeid);
    bool was_described(std::uint64_t nodeid);

    struct Statistics {
        std::size_t leased = 0;
        std::size_t bytes = 0;
        std::size_t files = 0;
    };
    Statistics statistics() const;

  private:
    struct Lease {
        std::shared_ptr<const Catalogue> catalogue;
        std::uint64_t root = 0;
        bool revoked = false;
    };

    std::atomic<bool> any_{false};
    mutable std::shared_mutex lock_;
    std::uint32_t last_ = 0;
    std::unordered_map<std::uint64_t, std::uint32_t> numbers_;  // by control's nodeid
    std::unordered_map<std::uint32_t, Lease> leases_;
    std::unordered_set<std::uint64_t> described_;
};

}  // namespace zc
