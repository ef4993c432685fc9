// What a ring queue hands between threads, with the test in the kernel's place: it lays requests
// into entries and takes committed replies out of them. No io_uring is needed.
#include <atomic>
#include <bit>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
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

TEST("many threads answer, each request twice, and each entry comes back once with its own bytes") {
    constexpr std::size_t kDepth = 8;
    constexpr int kRequests = 20'000;
    RingEntries entries(kDepth, 4096, 0);
    std::mutex lock;
    std::condition_variable wake;
    std::deque<std::uint64_t> held;
    bool ended = false;
    std::atomic<int> accepted{0}, refused{0};
    std::atomic<std::uint32_t> wakes{0};
    const auto reply_until_end = [&] {
        for (;;) {
            std::unique_lock guard(lock);
            wake.wait(guard, [&] { return ended || !held.empty(); });
            if (held.empty()) {
                return;
            }
            const auto unique = held.front();
            held.pop_front();
            guard.unlock();
            bool first = false;
            const auto text = std::to_string(unique);
            const bool taken = answer(entries, unique, text, first) > 0;
            ++(taken ? accepted : refused);
            if (taken && first) {
                wakes.fetch_add(1);
                wakes.notify_one();
            }
        }
    };
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back(reply_until_end);
    }
    std::array<std::uint64_t, kDepth> uniques{};
    std::uint64_t next = 2;
    bool bytes_right = true;
    int done_count = 0;
    const auto give = [&](std::size_t index) {
        uniques[index] = next;
        lay(entries, index, request(abi::Opcode::lookup, next, 1, std::string_view("name\0", 5)),
            0);
        Bytes message(4096);
        entries.fetch(index, std::as_writable_bytes(std::span(message)));
        {
            const std::lock_guard guard(lock);
            held.push_back(next);
            held.push_back(next);
        }
        wake.notify_all();
        next += 2;
    };
    for (std::size_t i = 0; i < kDepth; ++i) {
        give(i);
    }
    std::uint32_t seen = 0;
    while (done_count < kRequests) {
        auto done = entries.take_done();
        if (done == 0) {
            wakes.wait(seen);  // a wake that were lost would end at the program's deadline
            seen = wakes.load();
        }
        for (; done != 0; done &= done - 1) {
            const auto index = static_cast<std::size_t>(std::countr_zero(done));
            const auto wanted = std::to_string(uniques[index]);
            bytes_right =
                bytes_right && header_of(entries, index).entry.payload_size == wanted.size() &&
                std::memcmp(payload_of(entries, index), wanted.data(), wanted.size()) == 0;
            ++done_count;
            if (next <= 2 * static_cast<std::uint64_t>(kRequests)) {
                give(index);
            }
        }
    }
    {
        const std::lock_guard guard(lock);
        ended = true;
    }
    wake.notify_all();
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK(bytes_right);
    CHECK_EQ(accepted.load(), kRequests);
    CHECK_EQ(refused.load(), kRequests);
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

}  // namespace zc::test
