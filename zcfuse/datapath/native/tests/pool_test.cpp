// The lock budget and the buffers of serving path `pool`.
#include <cstring>
#include <fstream>
#include <sstream>

#include "check.hpp"
#include "files.hpp"
#include "serve/pool_buffer.hpp"

namespace zc::test {

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kBuffer = 64 * kPage;

// The flags of proc_pid_smaps(5) for the mapping of `data`.
std::string mapping_flags(const void* data) {
    std::ifstream smaps("/proc/self/smaps");
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    bool inside = false;
    for (std::string line; std::getline(smaps, line);) {
        std::uintptr_t begin = 0;
        std::uintptr_t end = 0;
        char dash = 0;
        std::istringstream words(line);
        if (words >> std::hex >> begin >> dash >> end && dash == '-') {
            inside = begin <= address && address < end;
        } else if (inside && line.starts_with("VmFlags:")) {
            return line + " ";
        }
    }
    return {};
}

bool has_flag(const PoolBuffer& buffer, const std::string& flag) {
    return mapping_flags(buffer.data()).find(" " + flag + " ") != std::string::npos;
}

std::int64_t faults_of_a_use(PoolBuffer& buffer) {
    CHECK_EQ(buffer.fresh(), 0);
    const std::int64_t before = faults_of_this_thread();
    for (std::size_t at = 0; at < buffer.size(); at += kPage) {
        buffer.data()[at] = std::byte{1};
    }
    return faults_of_this_thread() - before;
}

}  // namespace

TEST("a budget gives whole or not at all") {
    LockBudget budget(100);
    CHECK(budget.try_take(60));
    CHECK(!budget.try_take(41));
    CHECK(budget.try_take(40));
    CHECK_EQ(budget.used(), 100U);
    budget.give(100);
    CHECK(!budget.try_take(~std::size_t{0}));
    CHECK_EQ(budget.used(), 0U);
}

TEST("threads together never take more than the budget") {
    LockBudget budget(10);
    std::atomic<std::size_t> most{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            for (int round = 0; round < 20'000; ++round) {
                if (budget.try_take(4)) {
                    most = std::max(most.load(), budget.used());
                    budget.give(4);
                }
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK(most <= 10);
    CHECK_EQ(budget.used(), 0U);
}

TEST("a buffer is page-aligned, locked, takes no faults and is not inherited") {
    LockBudget budget(kBuffer);
    PoolBuffer buffer(kBuffer - 1, true, budget);
    CHECK_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % kPage, 0U);
    CHECK_EQ(buffer.size(), kBuffer);
    CHECK(buffer.locked());
    CHECK_EQ(buffer.unlocked_reason(), "");
    CHECK(faults_of_a_use(buffer) == 0 || sanitized());
    CHECK(has_flag(buffer, "lo") || sanitized());  // AddressSanitizer makes mlock do nothing
    CHECK(has_flag(buffer, "dc"));
}

TEST("a buffer over the budget works unlocked, prefaulted, and says why") {
    LockBudget budget(kBuffer - 1);
    PoolBuffer buffer(kBuffer, true, budget);
    CHECK(!buffer.locked());
    CHECK_EQ(buffer.unlocked_reason(), "over the lock budget of 262143 bytes");
    CHECK(faults_of_a_use(buffer) == 0 || sanitized());
    CHECK_EQ(budget.used(), 0U);
}

TEST("a buffer whose mlock fails names the errno and gives the budget back") {
    CHECK(sys::arm_faults("mlock:EPERM"));
    LockBudget budget(kBuffer);
    const PoolBuffer buffer(kBuffer, true, budget);
    CHECK(!buffer.locked());
    CHECK_EQ(buffer.unlocked_reason(), "mlock: EPERM");
    CHECK_EQ(budget.used(), 0U);
}

TEST("a buffer that is not prefaulted takes a fault for each page of each use") {
    LockBudget budget(kBuffer);
    PoolBuffer buffer(kBuffer, false, budget);
    CHECK(!buffer.locked());
    CHECK_EQ(budget.used(), 0U);
    CHECK(has_flag(buffer, "nh"));
    CHECK(faults_of_a_use(buffer) >= 64);
    CHECK(faults_of_a_use(buffer) >= 64);
}

TEST("a moved buffer has one owner, and the last one gives the lock back") {
    LockBudget budget(2 * kBuffer);
    {
        PoolBuffer first(kBuffer, true, budget);
        std::byte* const data = first.data();
        PoolBuffer second(std::move(first));
        CHECK(second.data() == data);
        PoolBuffer third(kBuffer, true, budget);
        CHECK_EQ(budget.used(), 2 * kBuffer);
        third = std::move(second);
        CHECK(third.data() == data);
        CHECK_EQ(budget.used(), kBuffer);
    }
    CHECK_EQ(budget.used(), 0U);
}

TEST("a buffer that cannot be mapped throws with its size") {
    CHECK(sys::arm_faults("mmap:ENOMEM:count=1"));
    LockBudget budget(kBuffer);
    std::string message;
    try {
        const PoolBuffer buffer(kBuffer, true, budget);
    } catch (const std::system_error& error) {
        message = error.what();
    }
    CHECK(message.find("262144 bytes") != std::string::npos);
}

}  // namespace zc::test
