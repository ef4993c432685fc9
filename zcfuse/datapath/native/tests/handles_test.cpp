// Open files, backing ids and control's records in memory that outlives its process.
#include <map>
#include <random>
#include <set>
#include <string>

#include "check.hpp"
#include "serve/nodes/table.hpp"
#include "serve/surviving/handle_memory.hpp"
#include "serve/surviving/journal.hpp"
#include "surviving.hpp"

namespace zc::test {

TEST("handles are whole after a kill at any point, and numbers are not used twice") {
    const HandleMemory first;
    const auto memory = copy_of(first.fd());
    std::mt19937 random(1);
    std::set<std::uint64_t> closed;
    for (int round = 0; round < 40; ++round) {
        kill_in(500 + static_cast<unsigned>(random() % 3000), [&](std::uint64_t turn) {
            static HandleMemory child(copy_of(memory.get()));
            static std::map<std::uint64_t, std::uint64_t> open;
            const auto id = static_cast<std::int32_t>(1 + turn % 50);
            child.register_backing(id);
            const auto unique = 2 * turn;
            open[turn] = child.open({0, turn % 100, unique, 5, id, turn % 2 == 0, 0});
            if (turn > 20) {
                child.close(open.extract(turn - 20).mapped());
            }
            if (turn % 3 == 0) {
                child.unregister_backing(id);
            }
        });
        HandleMemory taken(copy_of(memory.get()));
        for (const auto& handle : taken.all()) {
            CHECK_EQ(handle.uid, 5U);
            CHECK_EQ(handle.unique % 100 / 2 % 50, handle.nodeid % 50);
            CHECK(closed.insert(handle.number).second);
            CHECK(taken.close(handle.number).has_value());
            CHECK(!taken.close(handle.number).has_value());
        }
        for (const int id : taken.stray_backings()) {
            taken.unregister_backing(id);
        }
    }
    CHECK(!closed.empty());
}

TEST("an unanswered open is found by its request, once, and only by a successor") {
    HandleMemory first;
    const auto number = first.open({0, 7, 42, 0, 3, 0, 0});
    CHECK(!first.take(42).has_value());
    HandleMemory second(copy_of(first.fd()));
    CHECK_EQ(second.take(42)->number, number);
    CHECK(!second.take(42).has_value());
    CHECK(!second.close(number).has_value());
}

TEST("a backing id of no handle is stray, one of an open file is not") {
    HandleMemory first;
    first.register_backing(3);
    first.register_backing(4);
    first.open({0, 7, 42, 0, 3, 0, 0});
    const HandleMemory second(copy_of(first.fd()));
    CHECK(second.stray_backings() == std::vector<int>{4});
}

TEST("control's records are the old or the new ones after a kill at any point") {
    const Journal first;
    const auto memory = copy_of(first.fd());
    std::mt19937 random(2);
    for (int round = 0; round < 40; ++round) {
        kill_in(300 + static_cast<unsigned>(random() % 3000), [&](std::uint64_t turn) {
            static Journal child(copy_of(memory.get()));
            if (turn % 10 == 0) {
                const std::vector<std::string> fresh(3, std::string(turn % 5000, 'n'));
                child.replace(fresh);
            } else {
                child.append(std::string(turn % 3000, 'a'));
            }
        });
        const Journal taken(copy_of(memory.get()));
        for (const auto& record : taken.records()) {
            CHECK(record.find_first_not_of(record.empty() ? 'a' : record.front()) ==
                  std::string::npos);
        }
    }
}

}  // namespace zc::test
