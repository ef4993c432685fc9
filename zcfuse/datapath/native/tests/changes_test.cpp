// The changes under way and the copies of an upper layer, in memory that outlives its process.
#include <sys/stat.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "serve/surviving/change_memory.hpp"
#include "serve/surviving/copy_memory.hpp"
#include "serve/surviving/publish.hpp"
#include "surviving.hpp"

namespace zc::test {

namespace {

constexpr Identity kFile{7, 8, 9, S_IFREG};

ChangeMemory::Change change(std::uint64_t unique) {
    const auto name = "name" + std::to_string(unique);
    return {unique, 12, 0, {unique + 1, name, kFile}, {unique + 2, name, {}}};
}

CopyMemory::Copy copy(std::uint64_t number) {
    return {{number, 1, 2, S_IFREG}, {number + 1, 3, 0, S_IFREG}, 4, number};
}

// Changes a byte, wherever it lies.
void damage(int fd, std::size_t at) {
    const sys::MemoryFile bytes(copy_of(fd));
    bytes.data()[at] ^= std::byte{1};
}

template <typename Memory>
bool is_damaged(int fd) {
    try {
        const Memory taken(copy_of(fd));
        return false;
    } catch (const DamagedState&) {
        return true;
    }
}

}  // namespace

TEST("a successor finds what stood at a name before a change, until the change is answered") {
    ChangeMemory first;
    first.begin(change(40));
    CHECK(!first.inherited(40).has_value());
    ChangeMemory second(copy_of(first.fd()));
    const auto found = second.inherited(40);
    CHECK(found.has_value());
    CHECK_EQ(found->from.parent, 41U);
    CHECK_EQ(std::string(found->from.name.data()), "name40");
    CHECK(found->from.before == kFile);
    CHECK_EQ(found->to.before.ino, 0U);
    second.end(40);
    CHECK(!second.inherited(40).has_value());
    CHECK(ChangeMemory(copy_of(first.fd())).inherited().empty());
}

TEST("what the first process saw counts, also where a successor makes the change") {
    ChangeMemory first;
    first.begin(change(40));
    ChangeMemory second(copy_of(first.fd()));
    auto later = change(40);
    later.from.parent = 1;
    second.begin(later);
    CHECK_EQ(ChangeMemory(copy_of(first.fd())).inherited(40)->from.parent, 41U);
}

TEST("a name that does not fit is empty") {
    const ChangeMemory::Place longest(1, std::string(255, 'n'), {});
    const ChangeMemory::Place longer(1, std::string(256, 'n'), {});
    CHECK_EQ(std::string(longest.name.data()).size(), 255U);
    CHECK_EQ(std::string(longer.name.data()), "");
}

TEST("changes are whole after a kill at any point") {
    const ChangeMemory first;
    const auto memory = copy_of(first.fd());
    std::mt19937 random(3);
    std::size_t found = 0;
    for (int round = 0; round < 40; ++round) {
        kill_in(300 + static_cast<unsigned>(random() % 3000), [&](std::uint64_t turn) {
            static ChangeMemory child(copy_of(memory.get()));
            child.begin(change(2 * turn));
            if (turn > 5) {
                child.end(2 * (turn - 5));
            }
        });
        ChangeMemory taken(copy_of(memory.get()));
        for (const auto& one : taken.inherited()) {
            CHECK_EQ(one.from.parent, one.unique + 1);
            CHECK_EQ(one.to.parent, one.unique + 2);
            CHECK_EQ(std::string(one.to.name.data()), "name" + std::to_string(one.unique));
            taken.end(one.unique);
            ++found;
        }
    }
    CHECK(found > 0);
}

TEST("a record with a changed byte is damaged, one that has ended is not") {
    ChangeMemory memory;
    memory.begin(change(40));
    const std::size_t place = sizeof(std::uint64_t);
    damage(memory.fd(), place + sizeof(std::uint64_t));  // behind `unique`
    CHECK(is_damaged<ChangeMemory>(memory.fd()));
    memory.end(40);
    CHECK(!is_damaged<ChangeMemory>(memory.fd()));
    damage(memory.fd(), 0);
    CHECK(is_damaged<ChangeMemory>(memory.fd()));
}

TEST("a full table records no further change, and the next one once another has ended") {
    ChangeMemory memory;
    for (std::uint64_t unique = 1; unique <= ChangeMemory::kMost + 1; ++unique) {
        memory.begin(change(unique));
    }
    CHECK(!ChangeMemory(copy_of(memory.fd())).inherited(ChangeMemory::kMost + 1).has_value());
    memory.end(1);
    memory.begin(change(ChangeMemory::kMost + 2));
    CHECK(ChangeMemory(copy_of(memory.fd())).inherited(ChangeMemory::kMost + 2).has_value());
}

TEST("of more changes than a process can have under way the newest are kept") {
    ChangeMemory first;
    for (std::uint64_t unique = 1; unique <= 1030; ++unique) {
        first.begin(change(unique));
    }
    const ChangeMemory second(copy_of(first.fd()));
    CHECK_EQ(second.inherited().size(), 1024U);
    CHECK(!second.inherited(6).has_value());
    CHECK(second.inherited(7).has_value());
}

TEST("threads record and answer changes at once") {
    ChangeMemory memory;
    std::vector<std::thread> threads;
    for (std::uint64_t thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&memory, thread] {
            for (std::uint64_t turn = 1; turn <= 500; ++turn) {
                memory.begin(change(turn * 4 + thread));
                if (turn > 1) {
                    memory.end((turn - 1) * 4 + thread);
                }
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK_EQ(ChangeMemory(copy_of(memory.fd())).inherited().size(), 4U);
}

TEST("a successor finds the copies that have a name or may have one, in their order") {
    CopyMemory first;
    const auto settled = first.begin(copy(10));
    const auto dropped = first.begin(copy(20));
    const auto begun = first.begin(copy(30));
    first.settle(settled, 99);
    first.drop(dropped);
    const auto found = CopyMemory(copy_of(first.fd())).all();
    CHECK_EQ(found.size(), 2U);
    CHECK(found[0].state == CopyMemory::State::settled);
    CHECK_EQ(found[0].nodeid, 99U);
    CHECK_EQ(found[1].sequence, begun);
    CHECK(found[1].state == CopyMemory::State::begun);
    CHECK(found[1].copy.after == copy(30).after);
    CHECK_EQ(found[1].copy.number, 30U);
}

TEST("copies are whole after a kill at any point") {
    const CopyMemory first;
    const auto memory = copy_of(first.fd());
    std::mt19937 random(4);
    std::size_t found = 0;
    for (int round = 0; round < 20; ++round) {
        kill_in(300 + static_cast<unsigned>(random() % 3000), [&](std::uint64_t turn) {
            static CopyMemory child(copy_of(memory.get()));
            child.settle(child.begin(copy(turn)), turn);
        });
        const auto copies = CopyMemory(copy_of(memory.get())).all();
        found = copies.size();
        for (const auto& one : copies) {
            CHECK_EQ(one.copy.after.ino, one.copy.number + 1);
            CHECK(one.state == CopyMemory::State::begun || one.nodeid == one.copy.number);
        }
    }
    CHECK(found > 0);
}

TEST("the oldest copies are forgotten where there are too many") {
    CopyMemory memory;
    for (std::uint64_t number = 1; number <= CopyMemory::kMost + 10; ++number) {
        memory.begin(copy(number));
    }
    memory.settle(5, 1);  // of the place of a newer one
    const auto copies = CopyMemory(copy_of(memory.fd())).all();
    CHECK_EQ(copies.size(), CopyMemory::kMost - 1);
    CHECK_EQ(copies.front().copy.number, 12U);
    CHECK_EQ(copies.back().copy.number, CopyMemory::kMost + 10);
    for (const auto& one : copies) {
        CHECK(one.state == CopyMemory::State::begun);
    }
}

TEST("a copy's record with a changed byte is damaged") {
    CopyMemory memory;
    memory.begin(copy(10));
    const std::size_t place = 2 * sizeof(std::uint64_t);
    const std::size_t record = sizeof(CopyMemory::Record) + sizeof(std::uint64_t);
    damage(memory.fd(), place + record + sizeof(std::uint64_t));
    CHECK(is_damaged<CopyMemory>(memory.fd()));
}

}  // namespace zc::test
