// Latency histograms and the sketch of hot files, by themselves and filled by a data path.
#include <cerrno>
#include <set>
#include <thread>

#include "abi/fuse_nodes.hpp"
#include "check.hpp"
#include "player.hpp"
#include "serve/hot_files.hpp"
#include "serve/latency.hpp"

namespace zc::test {

namespace {

using std::chrono::nanoseconds;

Latency::Total total_of(const Latency& latency) {
    Latency::Total total;
    latency.add_to(total);
    return total;
}

FileUse use_of(const HotFiles& files, std::uint64_t nodeid) {
    HotFiles::Uses uses;
    files.add_to(uses);
    const auto found = uses.find(nodeid);
    return found == uses.end() ? FileUse{} : found->second;
}

Latency::Total latency_of(const Player& player, abi::Opcode opcode) {
    player.path->state().ledger.settle();
    Latency::Total total;
    for (const auto& thread : player.path->state().ledger.threads()) {
        thread->latency[static_cast<std::size_t>(opcode)].add_to(total);
    }
    return total;
}

}  // namespace

TEST("every bucket begins where the one before ends, and holds what lies between") {
    for (std::size_t i = 0; i + 1 < Latency::kBuckets; ++i) {
        const auto begin = Latency::begin_of(i);
        const auto end = Latency::end_of(i);
        CHECK_EQ(end, Latency::begin_of(i + 1));
        CHECK(begin < end);
        CHECK_EQ(Latency::bucket_of(begin), i);
        CHECK_EQ(Latency::bucket_of(end - 1), i);
        CHECK(i == 0 || end - begin <= begin / 4);
    }
}

TEST("powers of two begin buckets") {
    for (unsigned power = Latency::kFirstPower; power <= Latency::kLastPower; ++power) {
        const auto begin = std::uint64_t{1} << power;
        CHECK_EQ(Latency::begin_of(Latency::bucket_of(begin)), begin);
    }
}

TEST("what is longer than the last bucket's beginning is counted there") {
    CHECK_EQ(Latency::bucket_of(~std::uint64_t{0}), Latency::kBuckets - 1);
    Latency latency;
    latency.add(std::chrono::hours(24));
    CHECK_EQ(total_of(latency).buckets.back(), 1U);
    CHECK_EQ(total_of(latency).longest, 86'400'000'000'000U);
}

TEST("a clock that goes back costs no bucket") {
    Latency latency;
    latency.add(nanoseconds(-5));
    CHECK_EQ(total_of(latency).buckets.front(), 1U);
    CHECK_EQ(total_of(latency).sum, 0U);
}

TEST("histograms of several threads add up") {
    Latency first;
    Latency second;
    first.add(nanoseconds(1000));
    first.add(nanoseconds(3000));
    second.add(nanoseconds(1000));
    Latency::Total total;
    first.add_to(total);
    second.add_to(total);
    CHECK_EQ(total.count, 3U);
    CHECK_EQ(total.sum, 5000U);
    CHECK_EQ(total.longest, 3000U);
    CHECK_EQ(total.buckets[Latency::bucket_of(1000)], 2U);
    CHECK_EQ(total.buckets[Latency::bucket_of(3000)], 1U);
}

TEST("a histogram may be read while it is added to") {
    constexpr std::uint64_t kRequests = 20'000;
    Latency latency;
    std::thread adds([&latency] {
        for (std::uint64_t i = 0; i < kRequests; ++i) {
            latency.add(nanoseconds(i));
        }
    });
    std::uint64_t seen = 0;
    while (seen < kRequests) {
        const auto now = total_of(latency).count;
        CHECK(now >= seen);
        seen = now;
    }
    adds.join();
    CHECK_EQ(total_of(latency).longest, kRequests - 1);
}

TEST("the sketch counts exactly while there is room") {
    HotFiles files;
    for (std::uint64_t nodeid = 1; nodeid <= HotFiles::kWays; ++nodeid) {
        files.opened(nodeid);
        files.read(nodeid, 100 * nodeid);
        files.read(nodeid, 1);
    }
    for (std::uint64_t nodeid = 1; nodeid <= HotFiles::kWays; ++nodeid) {
        const auto use = use_of(files, nodeid);
        CHECK_EQ(use.opens, 1U);
        CHECK_EQ(use.reads, 2U);
        CHECK_EQ(use.bytes, 100 * nodeid + 1);
    }
}

TEST("a file that is hot keeps its place among any number of others") {
    HotFiles files;
    constexpr std::uint64_t kHot = 5;
    constexpr std::uint64_t kOthers = 200'000;
    std::uint64_t times = 0;
    for (std::uint64_t other = 100; other < kOthers; ++other) {
        files.opened(other);
        if (other % 100 == 0) {
            files.opened(kHot);
            ++times;
        }
    }
    HotFiles::Uses uses;
    files.add_to(uses);
    CHECK(uses.size() <= HotFiles::kPlaces);
    CHECK_EQ(use_of(files, kHot).opens, times);
}

TEST("files that are open are counted exactly, however many there are") {
    constexpr std::uint64_t kOpen = 5'000;
    constexpr std::uint64_t kAll = 100'000;
    HotFiles files(HotFiles::kPlaces, [](std::uint64_t nodeid) { return nodeid <= kOpen; });
    for (std::uint64_t round = 0; round < 3; ++round) {
        for (std::uint64_t nodeid = 1; nodeid <= kAll; ++nodeid) {
            files.read(nodeid, nodeid);
        }
    }
    HotFiles::Uses uses;
    files.add_to(uses);
    for (std::uint64_t nodeid = 1; nodeid <= kOpen; ++nodeid) {
        CHECK_EQ(uses[nodeid].reads, 3U);
        CHECK_EQ(uses[nodeid].bytes, 3 * nodeid);
    }
    CHECK(uses.size() < 4 * kOpen);
}

TEST("what is told of a file is never more than there was") {
    HotFiles files;
    for (std::uint64_t round = 0; round < 3; ++round) {
        for (std::uint64_t nodeid = 1; nodeid <= 10 * HotFiles::kPlaces; ++nodeid) {
            files.read(nodeid, 7);
        }
    }
    HotFiles::Uses uses;
    files.add_to(uses);
    for (const auto& [nodeid, use] : uses) {
        CHECK(use.reads <= 3);
        CHECK_EQ(use.bytes, 7 * use.reads);
    }
}

TEST("hot files are those with the most requests and those with the most bytes") {
    Ledger ledger;
    const auto thread = ledger.join("test");
    for (std::uint64_t nodeid = 1; nodeid <= 20; ++nodeid) {
        for (std::uint64_t i = 0; i < nodeid; ++i) {
            thread->files.opened(nodeid);
        }
    }
    thread->files.read(3, 1 << 20);
    const auto hot = ledger.hot_files(2);
    CHECK_EQ(hot.size(), 4U);
    std::set<std::uint64_t> nodes;
    for (const auto& file : hot) {
        nodes.insert(file.nodeid);
    }
    CHECK(nodes.contains(20) && nodes.contains(19) && nodes.contains(3));
}

TEST("each READ is in the histogram once, and in that of its path") {
    File file(1 << 20);
    Player player(by("pool"));
    player.install(2, file);
    for (std::uint32_t i = 0; i < 50; ++i) {
        player.read(i * 4096, 4096);
    }
    player.path->state().ledger.settle();
    Latency::Total by_pool;
    FileUse use;
    for (const auto& thread : player.path->state().ledger.threads()) {
        thread->path(Path::pool).latency.add_to(by_pool);
        const auto part = use_of(thread->files, 2);
        use.reads += part.reads;
        use.bytes += part.bytes;
    }
    CHECK_EQ(latency_of(player, abi::Opcode::read).count, 50U);
    CHECK_EQ(by_pool.count, 50U);
    CHECK_EQ(use.reads, 50U);
    CHECK_EQ(use.bytes, 50U * 4096);
}

TEST("an upcall takes until it is answered, and one that nobody answers until it is given up") {
    Player player(by("pool"));
    player.kernel.send(request(abi::Opcode::getattr, 10, 9, abi::GetattrIn{}));
    CHECK(!player.control.receive().empty());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    CHECK_EQ(latency_of(player, abi::Opcode::getattr).count, 0U);
    player.control.send(reply(10, -ENOENT));
    CHECK_EQ(header_of(player.kernel.receive()).error, -ENOENT);
    const auto answered = latency_of(player, abi::Opcode::getattr);
    CHECK_EQ(answered.count, 1U);
    CHECK(answered.longest >= 20'000'000U);

    auto hasty = by("pool");
    hasty.upcall_timeout = 0;
    Player alone(hasty);
    CHECK_EQ(header_of(alone.ask(request(abi::Opcode::getattr, 12, 9, abi::GetattrIn{}))).error,
             -EIO);
    CHECK_EQ(latency_of(alone, abi::Opcode::getattr).count, 1U);
}

TEST("what wants no reply is dealt with when it was passed on") {
    Player player(by("pool"));
    player.kernel.send(request(abi::Opcode::forget, 14, 9, abi::ForgetIn{1}));
    CHECK(!player.control.receive().empty());
    CHECK_EQ(latency_of(player, abi::Opcode::forget).count, 1U);
}

}  // namespace zc::test
