// The hand-over between threads of a ring queue. The test plays the kernel: it writes requests into
// entries and reads committed replies. It needs no io_uring.
#include <atomic>
#include <bit>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "check.hpp"
#include "messages.hpp"
#include "transport/ring_entries.hpp"
#include "transport/ring_gate.hpp"

namespace zc::test {

namespace {

constexpr std::size_t kPayload = 64 << 10;

abi::uring::EntryHeader& header_of(const RingEntries& entries, std::size_t index) {
    return *static_cast<abi::uring::EntryHeader*>(entries.buffers(index)[0].iov_base);
}

std::byte* payload_of(const RingEntries& entries, std::size_t index) {
    return static_cast<std::byte*>(entries.buffers(index)[1].iov_base);
}

// As the kernel splits a message: header, the operation's own structure, and the rest.
void lay(const RingEntries& entries, std::size_t index, const Bytes& message,
         std::size_t operation) {
    auto& header = header_of(entries, index);
    const auto in = structure_at<abi::InHeader>(message, 0);
    std::memcpy(header.in_out.data(), message.data(), sizeof in);
    std::memcpy(header.operation.data(), message.data() + sizeof in, operation);
    const auto rest = message.size() - sizeof in - operation;
    std::memcpy(payload_of(entries, index), message.data() + sizeof in + operation, rest);
    header.entry.commit_id = in.unique;
    header.entry.payload_size = static_cast<std::uint32_t>(rest);
}

ssize_t answer(RingEntries& entries, std::uint64_t unique, std::string_view text, bool& first) {
    abi::OutHeader out{static_cast<std::uint32_t>(sizeof out + text.size()), 0, unique};
    const std::array<iovec, 2> pieces{
        {{&out, sizeof out}, {const_cast<char*>(text.data()), text.size()}}};
    return entries.reply(pieces, first);
}

Bytes fetched(RingEntries& entries, std::size_t index) {
    Bytes message(4096);
    const auto n = entries.fetch(index, std::as_writable_bytes(std::span(message)));
    CHECK(n > 0);
    message.resize(static_cast<std::size_t>(n));
    return message;
}

}  // namespace

TEST("a request in three parts is put together as /dev/fuse gives it") {
    RingEntries entries(2, kPayload, 4096);
    const Bytes lookup = request(abi::Opcode::lookup, 6, 1, std::string_view("name\0", 5));
    lay(entries, 1, lookup, 0);
    CHECK(fetched(entries, 1) == lookup);
    const Bytes getxattr =
        request(abi::Opcode::getxattr, 8, 1, std::uint64_t{77}, std::string_view("user.a\0", 7));
    lay(entries, 0, getxattr, 8);
    CHECK(fetched(entries, 0) == getxattr);
    CHECK_EQ(entries.busy(), 2U);
}

TEST("a reply lies in the entry of its request and is given once") {
    RingEntries entries(2, kPayload, 0);
    lay(entries, 1, request(abi::Opcode::lookup, 6, 1, std::string_view("a\0", 2)), 0);
    fetched(entries, 1);
    bool first = false;
    CHECK_EQ(answer(entries, 8, "nobody", first), -ENOENT);
    CHECK_EQ(answer(entries, 6, "bytes", first), 21);
    CHECK(first);
    CHECK_EQ(answer(entries, 6, "again", first), -ENOENT);
    CHECK_EQ(entries.take_done(), 2U);
    CHECK_EQ(entries.take_done(), 0U);
    CHECK_EQ(header_of(entries, 1).entry.payload_size, 5U);
    CHECK(std::memcmp(payload_of(entries, 1), "bytes", 5) == 0);
    CHECK_EQ(entries.busy(), 0U);
}

TEST("a reply that is too large leaves its request to be answered with an error") {
    RingEntries entries(1, 4096, 0);
    lay(entries, 0, request(abi::Opcode::lookup, 6, 1, std::string_view("a\0", 2)), 0);
    fetched(entries, 0);
    bool first = false;
    CHECK_EQ(answer(entries, 6, std::string(5000, 'x'), first), -EMSGSIZE);
    CHECK_EQ(answer(entries, 6, "", first), 16);
}

TEST("a payload that was built in place is not copied onto itself") {
    RingEntries entries(1, kPayload, 0);
    lay(entries, 0, request(abi::Opcode::read, 6, 1, std::array<char, 40>{}), 40);
    fetched(entries, 0);
    const auto payload = entries.payload(6);
    CHECK(payload.data() == payload_of(entries, 0));
    std::memset(payload.data(), 'p', 100);
    abi::OutHeader out{116, 0, 6};
    const std::array<iovec, 2> pieces{{{&out, sizeof out}, {payload.data(), 100}}};
    bool first = false;
    CHECK_EQ(entries.reply(pieces, first), 116);
    CHECK(payload_of(entries, 0)[99] == std::byte{'p'});
    CHECK(entries.payload(6).empty());
}

TEST("what wants no reply is done at once, and what does not add up is answered EIO") {
    RingEntries entries(2, kPayload, 0);
    lay(entries, 0, request(abi::Opcode::forget, 6, 1, std::uint64_t{1}), 8);
    fetched(entries, 0);
    CHECK_EQ(entries.take_done(), 1U);
    Bytes broken = request(abi::Opcode::lookup, 8, 1, std::string_view("a\0", 2));
    lay(entries, 1, broken, 0);
    header_of(entries, 1).entry.payload_size = 100;
    CHECK_EQ(entries.fetch(1, std::as_writable_bytes(std::span(broken))), -EMSGSIZE);
    CHECK_EQ(entries.take_done(), 2U);
    abi::OutHeader out{};
    std::memcpy(&out, header_of(entries, 1).in_out.data(), sizeof out);
    CHECK_EQ(out.error, -EIO);
    CHECK_EQ(entries.busy(), 0U);
}

TEST("what is there at once is locked, as far as the budget goes, and told so") {
    const auto page = sys::page_bytes();
    RingEntries entries(4, kPayload, 5000);  // two pages of each payload, and a header's page
    std::size_t budget = 4 * page + 3 * 2 * page;
    const auto within = [&budget](std::span<std::byte> bytes) {
        const bool fits = bytes.size() <= budget;
        budget -= fits ? bytes.size() : 0;
        return fits;
    };
    CHECK_EQ(entries.lock([](std::span<std::byte>) { return false; }), 0U);
    CHECK_EQ(entries.lock(within), 10 * page);
    CHECK_EQ(budget, 0U);
    CHECK_EQ(entries.locked_payload(), 0U);  // nothing of one entry
    budget = 12 * page;
    CHECK_EQ(entries.lock(within), 12 * page);
    CHECK_EQ(entries.locked_payload(), 2 * page);
    RingEntries bare(1, kPayload, 0);
    CHECK_EQ(bare.lock(within), 0U);
}

// Threads that answer each held request, which they receive twice.
class Repliers {
  public:
    Repliers(RingEntries& entries, std::atomic<int>& accepted)
        : entries_(entries), accepted_(accepted) {
        for (int i = 0; i < 4; ++i) {
            threads_.emplace_back([this] { reply_until_end(); });
        }
    }
    ~Repliers() {
        {
            const std::lock_guard guard(lock_);
            ended_ = true;
        }
        told_.notify_all();
        for (auto& thread : threads_) {
            thread.join();
        }
    }
    Repliers(const Repliers&) = delete;
    Repliers& operator=(const Repliers&) = delete;

    void tell_twice(std::uint64_t unique) {
        {
            const std::lock_guard guard(lock_);
            held_.push_back(unique);
            held_.push_back(unique);
        }
        told_.notify_all();
    }
    // A lost wake-up would end at the program's deadline.
    void wait_for_wake() {
        wakes_.wait(seen_);
        seen_ = wakes_.load();
    }

  private:
    void reply_until_end() {
        for (;;) {
            std::unique_lock guard(lock_);
            told_.wait(guard, [this] { return ended_ || !held_.empty(); });
            if (held_.empty()) {
                return;
            }
            const auto unique = held_.front();
            held_.pop_front();
            guard.unlock();
            bool first = false;
            if (answer(entries_, unique, std::to_string(unique), first) > 0) {
                ++accepted_;
                wakes_ += first ? 1 : 0;
                wakes_.notify_one();
            }
        }
    }

    RingEntries& entries_;
    std::mutex lock_;
    std::condition_variable told_;
    std::deque<std::uint64_t> held_;
    bool ended_ = false;
    std::atomic<int>& accepted_;
    std::atomic<std::uint32_t> wakes_{0};
    std::uint32_t seen_ = 0;
    std::vector<std::thread> threads_;
};

TEST("many threads answer, each request twice, and each entry comes back once with its own bytes") {
    constexpr std::size_t kDepth = 8;
    constexpr int kRequests = 20'000;
    RingEntries entries(kDepth, 4096, 0);
    std::array<std::uint64_t, kDepth> uniques{};
    int given = 0;
    int done_count = 0;
    bool bytes_right = true;
    std::atomic<int> accepted{0};
    std::optional<Repliers> repliers(std::in_place, entries, accepted);
    const auto give = [&](std::size_t index) {
        const auto unique = static_cast<std::uint64_t>(2 * ++given);
        uniques[index] = unique;
        lay(entries, index, request(abi::Opcode::lookup, unique, 1, std::string_view("name\0", 5)),
            0);
        fetched(entries, index);
        repliers->tell_twice(unique);
    };
    const auto take = [&](std::size_t index) {
        const auto wanted = std::to_string(uniques[index]);
        bytes_right = bytes_right &&
                      header_of(entries, index).entry.payload_size == wanted.size() &&
                      std::memcmp(payload_of(entries, index), wanted.data(), wanted.size()) == 0;
        ++done_count;
    };
    for (std::size_t i = 0; i < kDepth; ++i) {
        give(i);
    }
    while (done_count < kRequests) {
        auto done = entries.take_done();
        if (done == 0) {
            repliers->wait_for_wake();
        }
        for (; done != 0; done &= done - 1) {
            const auto index = static_cast<std::size_t>(std::countr_zero(done));
            take(index);
            if (given < kRequests) {
                give(index);
            }
        }
    }
    repliers.reset();
    CHECK(bytes_right);
    CHECK_EQ(accepted.load(), kRequests);
}

TEST("the gate opens for all queues, or says which errno kept one back, in time") {
    using std::chrono::milliseconds;
    RingGate good(2);
    std::atomic<int> opened{0};
    const auto queue = [&] {
        opened += good.wait_open(milliseconds(5000)) == RingGate::State::open ? 1 : 0;
        good.registered(0);
    };
    std::thread first(queue);
    std::thread second(queue);
    CHECK_EQ(good.open(milliseconds(5000)), 0);
    first.join();
    second.join();
    CHECK_EQ(opened.load(), 2);
    CHECK(good.state() == RingGate::State::up);
    RingGate late(1);
    CHECK_EQ(late.open(milliseconds(20)), -ETIMEDOUT);
    RingGate refused(1);
    refused.registered(-EINVAL);
    CHECK(refused.state() == RingGate::State::failed);
    RingGate shut(1);
    shut.shut();
    CHECK(shut.wait_open(milliseconds(0)) == RingGate::State::unused);
    CHECK_EQ(shut.open(milliseconds(20)), -ECANCELED);
}

TEST("why the first queue could not register is what is told, whatever the others say") {
    using std::chrono::milliseconds;
    for (int round = 0; round < 200; ++round) {
        RingGate gate(2);
        std::thread queues([&] {
            gate.wait_open(milliseconds(1000));
            gate.registered(-EINVAL);
            gate.registered(-ECANCELED);
        });
        CHECK_EQ(gate.open(milliseconds(1000)), -EINVAL);
        queues.join();
    }
}

TEST("a ring that is withdrawn stays so, unless all its queues come late") {
    using std::chrono::milliseconds;
    RingGate gate(2);
    CHECK_EQ(gate.open(milliseconds(1)), -ETIMEDOUT);
    gate.withdraw("too slow");
    CHECK_EQ(gate.why_withdrawn(), "too slow");
    CHECK(gate.wait_open(milliseconds(0)) == RingGate::State::withdrawn);
    gate.registered(-EINVAL);
    CHECK(gate.state() == RingGate::State::withdrawn);
    gate.shut();
    CHECK(gate.state() == RingGate::State::withdrawn);
    gate.registered(0);
    gate.registered(0);
    CHECK(gate.state() == RingGate::State::up);
    CHECK_EQ(gate.why_withdrawn(), "");
    gate.withdraw("no more");
    CHECK(gate.state() == RingGate::State::up);
}

TEST("queues that register while the gate gives up agree with it on what became of the ring") {
    using std::chrono::milliseconds;
    for (int round = 0; round < 50; ++round) {
        RingGate gate(2);
        const auto queue = [&gate](int error) {
            while (gate.wait_open(milliseconds(5)) == RingGate::State::waiting) {
            }
            gate.registered(error);
        };
        std::thread good(queue, 0);
        std::thread other(queue, round % 2 == 0 ? -ENOMEM : 0);
        const int opened = gate.open(milliseconds(round % 5));
        gate.withdraw("given up");
        good.join();
        other.join();
        CHECK(opened != 0 || gate.state() == RingGate::State::up);
        CHECK(round % 2 != 0 || gate.state() == RingGate::State::withdrawn);
        CHECK(round % 2 == 0 || gate.state() == RingGate::State::up);
    }
}

}  // namespace zc::test
