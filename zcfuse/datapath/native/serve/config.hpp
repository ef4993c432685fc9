// The data path's settings: the user's choices, and values that depend on the machine.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "serve/constants.hpp"
#include "serve/hot_files.hpp"

namespace zc {

enum class Mode : std::uint8_t { automatic, upcall, pool, mmap, splice, passthrough };

// How requests and replies travel between the kernel and us.
enum class TransportWish : std::uint8_t { automatic, dev, uring };

// Throws std::invalid_argument, naming what is allowed.
Mode parse_mode(const std::string& name);

struct Config {
    std::string path = "auto";
    unsigned threads = 0;  // serving threads; 0: one per processor, 2 to 8
    // Of stacked filesystems below us that passthrough allows, from 1 to kMostStackDepth.
    std::uint32_t stack_depth = 1;
    std::size_t lock_budget = 64 << 20;  // bytes
    bool prefault = true;
    std::size_t hot_files = HotFiles::kPlaces;  // closed files that each thread counts by file
    bool read_only = true;
    std::uint32_t upcall_timeout =
        120;  // seconds until an upcall is answered EIO in control's place
    std::uint32_t cache_timeout =
        1000;  // milliseconds for which the kernel may cache names and attributes
    // The promise that the backing tree does not change: the kernel caches names and attributes
    // without limit, whatever cache_timeout is.
    bool immutable = false;
    // Whether opens of a mount that is immutable, or whose changes are pushed, need no message. It
    // then has no passthrough, which pays for large files.
    bool silent_opens = true;
    // Whether changes of the backing filesystems are pushed to the kernel (serve/coherence). A
    // fence needs a directory that this process alone writes to.
    bool push = false;
    std::string fence_directory;
    bool shared = false;             // whether other users than the daemon's may use the mount
    std::size_t control_tasks = 99;  // requests that control works on at a time
    std::size_t message_bytes = 0;   // the largest message between the planes; 0: no limit
    // Below this size (bytes) a READ is copied through a locked buffer rather than spliced.
    // docs/measurements.md has the measurement.
    std::size_t splice_min = 64 << 10;
    std::string transport = "dev";      // or "auto", "uring"
    bool passthrough_permitted = true;  // whether BACKING_OPEN can be expected to succeed
    bool source_stacked = false;        // whether all of the source is on such as overlayfs
    bool source_in_parts = false;       // whether most bytes are in large parts of files
    std::size_t ring_depth = 8;         // entries of a CPU's ring queue, up to 64

    // Whether the options allow opens without a message: a file's cached pages need no look then.
    bool options_allow_silent_opens() const noexcept { return immutable || push; }
    bool wants_silent_opens() const noexcept {
        return options_allow_silent_opens() && silent_opens;
    }
};

}  // namespace zc
