// How long requests took: a histogram of a fixed size, log-linear, so that it is as exact for a
// microsecond as for a minute. One thread adds, any may read (relaxed; a reader may be some
// requests behind).
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace zc {

class Count {
  public:
    void add(std::uint64_t n = 1) noexcept {
        value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
    void raise_to(std::uint64_t n) noexcept {
        if (n > get()) {
            value_.store(n, std::memory_order_relaxed);
        }
    }
    std::uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<std::uint64_t> value_{0};
};

using Clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC, read without a system call

class Latency {
  public:
    // Four buckets for each power of two, from 256 ns to 2^37 ns (137 s: beyond the longest
    // upcall), one for what is shorter and one for what is longer.
    static constexpr unsigned kFirstPower = 8;
    static constexpr unsigned kLastPower = 37;
    static constexpr unsigned kStepBits = 2;
    static constexpr std::size_t kSteps = std::size_t{1} << kStepBits;
    static constexpr std::size_t kBuckets = (kLastPower - kFirstPower) * kSteps + 2;

    static constexpr std::size_t bucket_of(std::uint64_t nanoseconds) noexcept {
        if (nanoseconds >> kFirstPower == 0) {
            return 0;
        }
        const auto power = static_cast<unsigned>(std::bit_width(nanoseconds)) - 1;
        const auto step = (nanoseconds >> (power - kStepBits)) & (kSteps - 1);
        return std::min(1 + (power - kFirstPower) * kSteps + step, kBuckets - 1);
    }
    // The first nanosecond of a bucket, and that behind its last.
    static constexpr std::uint64_t begin_of(std::size_t bucket) noexcept {
        if (bucket == 0) {
            return 0;
        }
        const auto power = kFirstPower + (bucket - 1) / kSteps;
        return (kSteps + (bucket - 1) % kSteps) << (power - kStepBits);
    }

    static constexpr std::uint64_t end_of(std::size_t bucket) noexcept {
        return bucket + 1 < kBuckets ? begin_of(bucket + 1) : ~std::uint64_t{0};
    }

    void add(std::chrono::nanoseconds taken) noexcept {
        const auto nanoseconds = static_cast<std::uint64_t>(
            std::max<std::int64_t>(static_cast<std::int64_t>(taken.count()), 0));
        buckets_[bucket_of(nanoseconds)].add();
        sum_.add(nanoseconds);
        longest_.raise_to(nanoseconds);
    }

    // Cheap test: every added request took more than 0 ns.
    bool any() const noexcept { return longest_.get() > 0; }

    // The sum of several threads' histograms. `count` is computed from the buckets, so that the two
    // agree even while threads add requests.
    struct Total {
        std::array<std::uint64_t, kBuckets> buckets{};
        std::uint64_t count = 0;
        std::uint64_t sum = 0;      // nanoseconds
        std::uint64_t longest = 0;  // nanoseconds
    };
    void add_to(Total& total) const noexcept {
        for (std::size_t i = 0; i < kBuckets; ++i) {
            const auto n = buckets_[i].get();
            total.buckets[i] += n;
            total.count += n;
        }
        total.sum += sum_.get();
        total.longest = std::max(total.longest, longest_.get());
    }

  private:
    std::array<Count, kBuckets> buckets_;
    Count sum_;
    Count longest_;
};

}  // namespace zc
