// Keeps listings of directories that were opened without a message, from one READDIR to the next.
// The key is the directory and the cookie that the listing has reached, because the request names
// no handle. Two clients that list one directory have a listing each, or take turns with a new one.
//
// Only its last reply ends a listing. An abandoned one goes when it is the oldest of too many, or
// after a while. A revoke leaves listings in place, like open files, because control's cookies
// differ.
//
// Threads: any. A listing that is in use is not in here. Nothing is closed under the lock.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>

#include "serve/nodes/open_directories.hpp"

namespace zc {

class ParkedListings {
  public:
    using Listing = std::shared_ptr<OpenDirectory>;

    explicit ParkedListings(std::size_t limit) noexcept : limit_(limit) {}
    ParkedListings(const ParkedListings&) = delete;
    ParkedListings& operator=(const ParkedListings&) = delete;

    // Takes the listing of a directory that has reached `cookie`; nullptr if there is no such
    // listing.
    Listing take(std::uint64_t nodeid, std::uint64_t cookie) {
        const std::lock_guard guard(lock_);
        const auto found = std::find_if(parked_.begin(), parked_.end(), [&](const Parked& one) {
            return one.nodeid == nodeid && one.listing->listing->position() == cookie;
        });
        if (found == parked_.end()) {
            return nullptr;
        }
        auto listing = std::move(found->listing);
        parked_.erase(found);
        return listing;
    }

    void put(std::uint64_t nodeid, Listing listing, std::int64_t now_ms) {
        std::list<Parked> dropped;
        const std::lock_guard guard(lock_);
        parked_.push_back({nodeid, std::move(listing), now_ms});
        if (parked_.size() > limit_) {
            dropped.splice(dropped.begin(), parked_, parked_.begin());
        }
    }

    void drop(std::uint64_t nodeid) {
        drop_if([nodeid](const Parked& one) { return one.nodeid == nodeid; });
    }
    void drop_unused(std::int64_t until_ms) {
        drop_if([until_ms](const Parked& one) { return one.since_ms <= until_ms; });
    }
    void clear() {
        drop_if([](const Parked&) { return true; });
    }

    std::size_t size() const {
        const std::lock_guard guard(lock_);
        return parked_.size();
    }

  private:
    struct Parked {
        std::uint64_t nodeid = 0;
        Listing listing;
        std::int64_t since_ms = 0;
    };

    template <typename Condition>
    void drop_if(Condition condition) {
        std::list<Parked> dropped;
        const std::lock_guard guard(lock_);
        for (auto at = parked_.begin(); at != parked_.end();) {
            const auto next = std::next(at);
            if (condition(*at)) {
                dropped.splice(dropped.end(), parked_, at);
            }
            at = next;
        }
    }

    const std::size_t limit_;
    mutable std::mutex lock_;
    std::list<Parked> parked_;  // the oldest first
};

}  // namespace zc
