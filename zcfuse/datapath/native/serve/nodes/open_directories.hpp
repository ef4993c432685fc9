// The directories that clients have open, by file handle.
//
// An open directory needs no descriptor: only the last used ones, up to a fixed number, keep their
// listings open. The next READDIR of another one opens its listing again, and goes on at the
// position that the client asks for.
//
// Threads: any; the table's lock is innermost. Each directory has a separate lock. A thread holds
// it while it asks the source, and takes the locks of the other tables under it. Another
// directory's lock is only tried.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "serve/nodes/table.hpp"
#include "serve/sources/source.hpp"
#include "serve/surviving/session_memory.hpp"

namespace zc {

struct OpenDirectory {
    std::mutex lock;
    std::unique_ptr<Listing> listing;  // nullptr: to be opened again
    bool reopened = false;
    bool personal = false;           // another user may get other names
    std::uint64_t name_changes = 0;  // LeasedNodes::name_changes() when it was opened
};

class OpenDirectories {
  public:
    // `most`: listings that stay open. Handles are numbered by `session`, which is borrowed. Those
    // of an earlier process need no record: a listing is opened again wherever it stood.
    OpenDirectories(std::size_t most, SessionMemory& session) noexcept
        : most_(most), session_(session), inherited_(session.last_handle()) {}

    std::uint64_t add(std::shared_ptr<OpenDirectory> opened) {
        std::uint64_t handle = 0;
        {
            const std::lock_guard guard(lock_);
            handle = kOwnBit | session_.next_handle();
            by_handle_.emplace(handle, Slot{std::move(opened), used_.end()});
        }
        used(handle);
        return handle;
    }
    std::shared_ptr<OpenDirectory> find(std::uint64_t handle) {
        const std::lock_guard guard(lock_);
        auto found = by_handle_.find(handle);
        if (found == by_handle_.end() && is_own(handle) && (handle & ~kOwnBit) <= inherited_) {
            found = by_handle_.emplace(handle, Slot{std::make_shared<OpenDirectory>(), used_.end()})
                        .first;
        }
        return found == by_handle_.end() ? nullptr : found->second.opened;
    }
    // A directory is about to be listed; others may lose their listings for it.
    void used(std::uint64_t handle) {
        for (const auto& other : longest_unused(handle)) {
            close_idle(*other);
        }
    }
    // The caller closes it, outside of the lock.
    std::shared_ptr<OpenDirectory> take(std::uint64_t handle) {
        const std::lock_guard guard(lock_);
        const auto node = by_handle_.extract(handle);
        if (node.empty()) {
            return nullptr;
        }
        if (node.mapped().place != used_.end()) {
            used_.erase(node.mapped().place);
        }
        return std::move(node.mapped().opened);
    }
    // Closes the listings that no thread uses, when the process runs out of descriptors.
    void give_back_descriptors() {
        std::vector<std::shared_ptr<OpenDirectory>> all;
        {
            const std::lock_guard guard(lock_);
            for (const auto handle : used_) {
                all.push_back(by_handle_.at(handle).opened);
            }
        }
        for (const auto& opened : all) {
            close_idle(*opened);
        }
    }
    std::size_t size() const {
        const std::lock_guard guard(lock_);
        return by_handle_.size();
    }
    void clear() {
        std::unordered_map<std::uint64_t, Slot> dropped;
        const std::lock_guard guard(lock_);
        dropped.swap(by_handle_);
        used_.clear();
    }

  private:
    struct Slot {
        std::shared_ptr<OpenDirectory> opened;
        std::list<std::uint64_t>::iterator place;
    };

    // Puts a handle last, and returns the first ones beyond `most_`. One that is in use then stays
    // open until its next use puts it last again.
    std::vector<std::shared_ptr<OpenDirectory>> longest_unused(std::uint64_t handle) {
        std::vector<std::shared_ptr<OpenDirectory>> found;
        const std::lock_guard guard(lock_);
        const auto at = by_handle_.find(handle);
        if (at == by_handle_.end()) {
            return found;
        }
        if (at->second.place == used_.end()) {
            at->second.place = used_.insert(used_.end(), handle);
        } else {
            used_.splice(used_.end(), used_, at->second.place);
        }
        while (used_.size() > most_) {
            auto& first = by_handle_.at(used_.front());
            found.push_back(first.opened);
            first.place = used_.end();
            used_.pop_front();
        }
        return found;
    }

    static void close_idle(OpenDirectory& opened) {
        const std::unique_lock guard(opened.lock, std::try_to_lock);
        if (guard.owns_lock() && opened.listing && opened.listing->can_resume()) {
            opened.listing.reset();
        }
    }

    const std::size_t most_;
    mutable std::mutex lock_;
    std::unordered_map<std::uint64_t, Slot> by_handle_;
    std::list<std::uint64_t> used_;  // handles with an open listing, the longest unused first
    SessionMemory& session_;
    const std::uint64_t inherited_;  // the last handle of an earlier process
};

}  // namespace zc
