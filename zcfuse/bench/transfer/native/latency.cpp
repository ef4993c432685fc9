#include "latency.hpp"

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "meter.hpp"
#include "resources.hpp"

namespace zc::transfer {

namespace {

constexpr std::size_t kPage = 4096;

std::uint64_t now_ns() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(now.tv_nsec);
}

std::vector<std::uint64_t> shuffled(std::uint64_t count, std::uint64_t seed) {
    std::vector<std::uint64_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
    return order;
}

template <typename Read>
Latency timed(const std::vector<std::uint64_t>& order, Read read) {
    std::vector<std::uint64_t> took(order.size());
    const Meter meter;
    for (std::size_t i = 0; i < order.size(); ++i) {
        const std::uint64_t begin = now_ns();
        read(i, order[i] * kPage);
        took[i] = now_ns() - begin;
    }
    const Cost cost = meter.stop();
    std::sort(took.begin(), took.end());
    const auto at = [&took](std::size_t per_mille) {
        return took[std::min(took.size() - 1, took.size() * per_mille / 1000)];
    };
    return {took.size(), at(500),           at(990),          at(999),
            took.back(), cost.minor_faults, cost.major_faults};
}

Latency by_read(const LatencyJob& job, const std::vector<std::uint64_t>& order) {
    const auto file = open_file(job.path);
    // Each read goes to fresh memory, as into a new buffer.
    auto memory = Pages::untouched(order.size() * kPage);
    if (job.prefaulted) {
        memory.populate(memory.part(0, memory.size()), MADV_POPULATE_WRITE);
        memory.lock();
    }
    return timed(order, [&](std::size_t i, std::uint64_t offset) {
        granted("pread", [&] {
            return ::pread(file.get(), memory.data() + i * kPage, kPage,
                           static_cast<off_t>(offset));
        });
    });
}

Latency by_mapping(const LatencyJob& job, const std::vector<std::uint64_t>& order) {
    const auto file = open_file(job.path);
    auto mapping = Pages::of_file(file.get(), order.size() * kPage);
    if (job.prefaulted) {
        mapping.populate(mapping.part(0, mapping.size()), MADV_POPULATE_READ);
        mapping.lock();
    }
    const auto target = Pages::anonymous(kPage);
    return timed(order, [&](std::size_t, std::uint64_t offset) {
        std::memcpy(target.data(), mapping.data() + offset, kPage);
        asm volatile("" : : "r"(target.data()) : "memory");  // the copy is never read
    });
}

}  // namespace

Latency latency(const LatencyJob& job) {
    const auto order = shuffled(job.pages, job.seed);
    if (order.empty()) {
        refuse(EINVAL, "a latency of no reads");
    }
    return job.mapped ? by_mapping(job, order) : by_read(job, order);
}

}  // namespace zc::transfer
