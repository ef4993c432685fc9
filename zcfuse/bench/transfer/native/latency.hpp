// The time of single reads of a page, into present and into untouched memory.
#pragma once

#include <cstdint>
#include <string>

namespace zc::transfer {

struct LatencyJob {
    std::string path;
    std::uint64_t pages = 0;  // this many from the start of the file, each once, in random order
    bool mapped = false;      // copied out of a mapping of the file, otherwise read by pread(2)
    bool prefaulted = false;  // the memory is populated and locked before the first read
    std::uint64_t seed = 0;
};

struct Latency {
    std::uint64_t reads = 0;
    std::uint64_t p50_ns = 0;
    std::uint64_t p99_ns = 0;
    std::uint64_t p999_ns = 0;
    std::uint64_t max_ns = 0;
    std::uint64_t minor_faults = 0;  // while reading
    std::uint64_t major_faults = 0;
};

// Throws std::system_error, also if the memory cannot be locked.
Latency latency(const LatencyJob& job);

}  // namespace zc::transfer
