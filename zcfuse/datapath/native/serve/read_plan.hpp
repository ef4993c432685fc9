// Which path answers a READ, on any channel, and why not a better one.
//
// No state; any thread.
#pragma once

#include <cstddef>

#include "serve/config.hpp"
#include "serve/lease.hpp"
#include "serve/ledger.hpp"

namespace zc {

struct ReadPolicy {
    Mode mode = Mode::automatic;
    std::size_t splice_min = 0;  // bytes
    std::size_t max_read = 0;    // bytes, the largest READ that was negotiated
    bool prefault = true;
};

// How a channel takes the bytes of a reply: /dev/fuse also pages by reference, a ring only bytes in
// the buffer of the request's entry.
enum class Takes : bool { bytes, pages };

// The path of a READ of `size` bytes.
Path path_of_read(const ReadPolicy& policy, const FileLease& lease, std::size_t size,
                  Takes takes) noexcept;

// The same of a READ that will be answered now. Counts the reasons.
Path plan_read(const ReadPolicy& policy, const FileLease& lease, std::size_t size, Takes takes,
               ThreadCounts& counts) noexcept;

}  // namespace zc
