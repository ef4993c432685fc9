// The directories that are open now, as O_PATH descriptors by nodeid: a bounded cache, because a
// node keeps no descriptor and a path is long to walk.
//
// What is cached was beneath its lease's root when `checked`; whoever uses it must have that
// confirmed once it is older than the cache timeout, for an outsider may have moved it away.
//
// Threads: any. A Directory is shared and stays open for as long as somebody uses it. The lock is
// innermost; nothing is closed under it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "sys/unique_fd.hpp"

namespace zc {

// A real directory that a leased node shows, or one of several.
struct Layer {
    sys::UniqueFd fd;
    std::uint32_t device_major = 0;
    std::uint32_t device_minor = 0;
    bool local = false;  // statx never asks a server
};

// "Node `nodeid` mirrors this directory", or is the union of these. Lives for as long as anything
// below it is in use.
struct LeaseRoot {
    std::uint32_t number = 0;  // of the first layer; those of the others follow
    std::uint64_t nodeid = 0;
    std::vector<Layer> layers;  // the topmost first; of a mirror one
    bool merged = false;        // whiteouts and the like are looked for
    bool sees_trusted = true;   // whether all of them can be seen (trusted. attributes)
    // What control answers for all the same, with all below it: paths from here, without a `/` at
    // either end.
    std::set<std::string, std::less<>> kept;
};

// What one layer has of a directory.
struct Part {
    std::uint32_t layer = 0;
    sys::UniqueFd own;  // -1 for a lease's root, whose descriptor is the lease's
};

struct Directory {
    std::vector<Part> parts;  // the topmost first, one at least; of a mirror one
    std::shared_ptr<LeaseRoot> root;
    std::uint64_t nodeid = 0;
    std::int64_t checked = 0;  // coarse milliseconds
    mutable std::atomic<bool> used{true};

    const Layer& layer(std::size_t part) const noexcept { return root->layers[parts[part].layer]; }
    int fd(std::size_t part = 0) const noexcept {
        return parts[part].own ? parts[part].own.get() : layer(part).fd.get();
    }
};

class DirectoryCache {
  public:
    explicit DirectoryCache(std::size_t capacity) : capacity_(capacity) {}
    DirectoryCache(const DirectoryCache&) = delete;
    DirectoryCache& operator=(const DirectoryCache&) = delete;

    std::shared_ptr<const Directory> find(std::uint64_t nodeid) const;
    // Does nothing when clear() was called since generation() returned `generation`.
    void put(std::shared_ptr<const Directory> directory, std::uint64_t generation);
    void drop(std::uint64_t nodeid);
    void clear();
    std::uint64_t generation() const noexcept {
        return generation_.load(std::memory_order_acquire);
    }
    std::size_t size() const;
    std::size_t capacity() const;
    // At most so many from now on, because each may cost several descriptors.
    void limit(std::size_t capacity);

  private:
    std::size_t free_slot();

    std::size_t capacity_;
    mutable std::shared_mutex lock_;
    std::unordered_map<std::uint64_t, std::size_t> slots_;
    std::vector<std::shared_ptr<const Directory>> ring_;  // second chance, from hand_ on
    std::size_t hand_ = 0;
    std::atomic<std::uint64_t> generation_{0};
};

}  // namespace zc
