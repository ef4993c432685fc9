// Shares of the threads for slow requests, and of a ring's entries.
#include "serve/user_queue.hpp"

#include <cerrno>
#include <chrono>
#include <memory>

#include "check.hpp"
#include "serve/nodes/renames.hpp"

namespace zc::test {

namespace {

using std::chrono::seconds;

class FakeRing final : public Channel {
  public:
    ssize_t receive(std::span<std::byte>) const noexcept override { return -ECANCELED; }
    void wait() const noexcept override {}
    ssize_t reply(std::span<const iovec>) const noexcept override { return -ENOENT; }
    ssize_t reply_from_pipe(int, std::size_t, std::span<std::byte>) const noexcept override {
        return -EOPNOTSUPP;
    }
    std::span<std::byte> payload(std::uint64_t) const noexcept override { return {}; }
    bool is_ring() const noexcept override { return true; }
};

constexpr std::uint32_t kUser = 1000;
constexpr std::uint32_t kOther = 1001;
constexpr MostHeld kMost{3, 100};

CallJob job(const std::shared_ptr<const Channel>& channel, std::uint64_t unique, seconds age,
            std::uint32_t uid = kUser) {
    abi::InHeader header{};
    header.unique = unique;
    header.uid = uid;
    return call_job(channel, header, {}, Clock::now() - age);
}

}  // namespace

TEST("who was refused for slow requests gets no more than a share once they have ended") {
    const auto ring = std::make_shared<const FakeRing>();
    UserQueue<CallJob> queue(6, 4, 3);
    for (std::uint64_t unique = 1; unique <= 3; ++unique) {
        queue.push(job(ring, unique, seconds(2)));
    }
    CHECK(queue.holds_too_long(*ring, kUser, kMost, seconds(0)));
    for (std::uint64_t unique = 1; unique <= 3; ++unique) {
        CHECK(queue.withdraw(unique).has_value());
    }
    CHECK(!queue.holds_too_long(*ring, kUser, kMost, seconds(0)));
    for (std::uint64_t unique = 4; unique <= 6; ++unique) {
        queue.push(job(ring, unique, seconds(0)));
        queue.push(job(ring, unique + 10, seconds(0), kOther));
    }
    CHECK(queue.holds_too_long(*ring, kUser, kMost, seconds(0)));
    CHECK(!queue.holds_too_long(*ring, kOther, kMost, seconds(0)));
}

TEST("requests under way count for what a user holds of a ring") {
    const auto ring = std::make_shared<const FakeRing>();
    UserQueue<CallJob> queue(6, 4, 3);
    for (std::uint64_t unique = 1; unique <= 4; ++unique) {
        queue.push(job(ring, unique, seconds(2)));
    }
    const auto first = queue.next();
    const auto second = queue.next();
    CHECK(first.has_value() && second.has_value());
    CHECK_EQ(queue.take_beyond(kMost, seconds(1)).size(), 1U);
    CHECK(queue.holds_too_long(*ring, kUser, kMost, seconds(0)));
    queue.done(*first);
    CHECK(!queue.holds_too_long(*ring, kUser, kMost, seconds(0)));
}

TEST("a user's requests of one ring leave threads to those of another") {
    const auto ring = std::make_shared<const FakeRing>();
    const auto other = std::make_shared<const FakeRing>();
    UserQueue<CallJob> queue(6, 4, 1);
    queue.push(job(ring, 1, seconds(0)));
    queue.push(job(ring, 2, seconds(0)));
    queue.push(job(other, 3, seconds(0)));
    CHECK_EQ(unique_of(*queue.next()), 1U);
    CHECK_EQ(unique_of(*queue.next()), 3U);
}

TEST("a rename that takes too long is waited for once") {
    Renames renames;
    CHECK(renames.begin());
    CHECK(!renames.begin());  // waits in vain
    CHECK(!renames.begin());
    CHECK(!Renames::Look(renames));
    renames.end();
    CHECK(bool(Renames::Look(renames)));
    CHECK(renames.begin());
    renames.end();
}

}  // namespace zc::test
