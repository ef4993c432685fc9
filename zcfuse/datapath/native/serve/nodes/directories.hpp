// A bounded cache of open directories by nodeid, because nodes keep no descriptors and walking a
// path is slow.
//
// A cached directory was beneath its root at the time `checked`. If others may change the tree, a
// user must check again after the cache timeout.
//
// Threads: any. A Directory is shared and stays open while a request uses it. The lock is
// innermost, and directories are closed outside of it.
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

#include "serve/sources/source.hpp"

namespace zc {

// "Node `nodeid` shows this source." Lives for as long as anything below it is in use.
struct LeaseRoot {
    std::uint32_t number = 0;  // of the first layer; those of the others follow
    std::uint64_t nodeid = 0;
    std::shared_ptr<const Source> source;
    // Paths that stay with control, with everything below them: relative to this node, without a
    // `/` at either end.
    std::set<std::string, std::less<>> kept;
};

struct Directory {
    SourceDirectory::Ref at;
    std::shared_ptr<const LeaseRoot> root;
    std::uint64_t nodeid = 0;
    std::int64_t checked = 0;  // coarse milliseconds
    bool personal = false;     // as one user sees it, so the kernel may keep no name in it
    // Since before it was opened each change of its names is reported, until a directory in a layer
    // changes (WatchedNames, the number of such changes); 0: not.
    mutable std::atomic<std::uint64_t> watched{0};
    mutable std::atomic<bool> used{true};

    // Converts an identity of the table of nodes into the source's.
    Identity within(Identity identity) const noexcept {
        identity.lease -= root->number;
        return identity;
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
