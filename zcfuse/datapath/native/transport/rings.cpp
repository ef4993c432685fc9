#include "transport/rings.hpp"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <set>
#include <system_error>
#include <thread>

#include "sys/uring.hpp"

namespace zc {

namespace {

// A list of ranges such as "0-3,8" (Documentation/admin-guide/cputopology.rst).
std::set<std::size_t> cpus_in(const char* path) {
    std::ifstream file(path);
    std::set<std::size_t> cpus;
    std::size_t first = 0;
    while (file >> first) {
        std::size_t last = first;
        if (file.peek() == '-') {
            file.get();
            file >> last;
        }
        for (auto cpu = first; cpu <= std::min<std::size_t>(last, UINT16_MAX - 1); ++cpu) {
            cpus.insert(cpu);
        }
        if (file.peek() != ',') {
            break;
        }
        file.get();
    }
    return cpus;
}

// The kernel numbers its queues from 0 to the number of possible CPUs.
std::size_t possible_cpus() {
    const auto cpus = cpus_in("/sys/devices/system/cpu/possible").size();
    return std::max<std::size_t>(cpus > 0 ? cpus : std::thread::hardware_concurrency(), 1);
}

}  // namespace

Rings::Rings(int device, const RingOptions& options) : device_(device), depth_(options.depth) {
    const auto cpus = possible_cpus();
    gate_ = std::make_shared<RingGate>(cpus);
    const auto online = cpus_in("/sys/devices/system/cpu/online");
    // A virtual machine may have hundreds of possible CPUs that never appear.
    auto unused = options;
    unused.prefault_bytes = 0;
    for (std::size_t cpu = 0; cpu < cpus; ++cpu) {
        const bool used = online.empty() || online.count(cpu) > 0;
        queues_.push_back(std::make_shared<const RingQueue>(static_cast<std::uint16_t>(cpu), device,
                                                            used ? options : unused, gate_));
    }
}

void Rings::lock_buffers(const RingEntries::Lock& lock) {
    for (const auto& queue : queues_) {
        locked_bytes_ += queue->lock_buffers(lock);
    }
}

// A failed REGISTER ends the ring before it starts (fs/fuse/dev_uring.c, Linux 6.18), and one for
// an impossible queue always fails.
int Rings::withdraw() const noexcept {
    try {
        sys::Uring ring(1, device_);
        int error = ring.enable();
        error = error == 0 ? ring.add_withdrawal() : error;
        return error == 0 ? ring.submit(1) : error;
    } catch (const std::system_error& error) {
        return -error.code().value();
    }
}

RingCounts Rings::counts() const noexcept {
    RingCounts counts;
    for (const auto& queue : queues_) {
        queue->add_to(counts);
    }
    return counts;
}

RingSupport ring_support() {
    std::ifstream file("/sys/module/fuse/parameters/enable_uring");
    char set = 0;
    if (!(file >> set)) {
        return RingSupport::missing;
    }
    return set == 'Y' || set == '1' ? RingSupport::present : RingSupport::switched_off;
}

}  // namespace zc
