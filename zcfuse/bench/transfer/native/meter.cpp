#include "meter.hpp"

#include <sys/resource.h>
#include <time.h>

#include <fstream>
#include <string>

namespace zc::transfer {

namespace {

std::uint64_t nanoseconds(clockid_t clock) {
    timespec now{};
    ::clock_gettime(clock, &now);
    constexpr std::uint64_t kSecond = 1'000'000'000;
    return static_cast<std::uint64_t>(now.tv_sec) * kSecond +
           static_cast<std::uint64_t>(now.tv_nsec);
}

// The number after `key:` in one of this process's files below /proc; 0 if missing.
std::uint64_t number(const char* path, const std::string& key) {
    std::ifstream file(path);
    for (std::string word; file >> word;) {
        if (word == key + ":") {
            std::uint64_t value = 0;
            file >> value;
            return value;
        }
    }
    return 0;
}

std::uint64_t resident_bytes(const char* key) {
    return number("/proc/self/status", key) * 1024;
}

void forget_peak() {
    // proc(5): 5 resets the peak resident set size.
    std::ofstream("/proc/self/clear_refs") << "5";
}

Cost so_far() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    Cost cost;
    cost.minor_faults = static_cast<std::uint64_t>(used.ru_minflt);
    cost.major_faults = static_cast<std::uint64_t>(used.ru_majflt);
    cost.voluntary_switches = static_cast<std::uint64_t>(used.ru_nvcsw);
    cost.involuntary_switches = static_cast<std::uint64_t>(used.ru_nivcsw);
    return cost;
}

}  // namespace

Meter::Meter() {
    forget_peak();
    const std::uint64_t resident = resident_bytes("VmRSS");
    const std::uint64_t rchar = number("/proc/self/io", "rchar");
    const std::uint64_t wchar = number("/proc/self/io", "wchar");
    begin_ = so_far();
    begin_.resident_before = resident;
    begin_.rchar = rchar;
    begin_.wchar = wchar;
    begin_.cpu_ns = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    begin_.ns = nanoseconds(CLOCK_MONOTONIC);
}

Cost Meter::stop() const {
    const std::uint64_t now = nanoseconds(CLOCK_MONOTONIC);
    const std::uint64_t cpu_ns = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    Cost cost = so_far();
    cost.ns = now - begin_.ns;
    cost.cpu_ns = cpu_ns - begin_.cpu_ns;
    cost.minor_faults -= begin_.minor_faults;
    cost.major_faults -= begin_.major_faults;
    cost.voluntary_switches -= begin_.voluntary_switches;
    cost.involuntary_switches -= begin_.involuntary_switches;
    cost.rchar = number("/proc/self/io", "rchar") - begin_.rchar;
    cost.wchar = number("/proc/self/io", "wchar") - begin_.wchar;
    cost.resident_before = begin_.resident_before;
    cost.resident_peak = resident_bytes("VmHWM");
    return cost;
}

}  // namespace zc::transfer
