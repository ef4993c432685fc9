// The cost of some work to this process, including all threads (io_uring's workers too).
#pragma once

#include <cstdint>

namespace zc::transfer {

struct Cost {
    std::uint64_t ns = 0;
    std::uint64_t cpu_ns = 0;
    std::uint64_t minor_faults = 0;
    std::uint64_t major_faults = 0;
    std::uint64_t voluntary_switches = 0;
    std::uint64_t involuntary_switches = 0;
    std::uint64_t rchar = 0;  // from /proc/PID/io; 0 if unreadable
    std::uint64_t wchar = 0;
    std::uint64_t resident_before = 0;  // bytes
    std::uint64_t resident_peak = 0;
};

// Runs from construction until stop().
class Meter {
  public:
    Meter();
    Cost stop() const;

  private:
    Cost begin_;
};

}  // namespace zc::transfer
