// The table of nodes in memory that outlives its process: SIGKILL at random points, and damage.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <map>
#include <memory>
#include <random>
#include <string>

#include "check.hpp"
#include "files.hpp"
#include "serve/nodes/table.hpp"

namespace zc::test {

namespace {

constexpr std::uint64_t kFiles = 400;
constexpr std::uint64_t kParents = 7;

sys::UniqueFd copy_of(int fd) {
    sys::UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    checked(copy.get(), "dup");
    return copy;
}

// Changes a table as lookups, FORGETs and a client's changes do, the same way for the same seed.
class Changes {
  public:
    Changes(NodeTable& table, unsigned seed) : table_(table), random_(seed) {}

    // Returns the inode number that it was about.
    std::uint64_t next() {
        const std::uint64_t ino = 1 + random_() % kFiles;
        const Identity identity{ino, ino * 3, 1, S_IFREG};
        const Link link{1 + random_() % kParents, name()};
        switch (random_() % 8) {
            case 0:
                table_.renamed(identity, link, 1 + random_() % kParents, name());
                break;
            case 1:
                table_.unlinked(identity, link);
                break;
            case 2:
                table_.forget(table_.nodeid_of(identity), 1 + random_() % 3);
                break;
            case 3:
                table_.unchanged(table_.nodeid_of(identity), random_() % 4, 7, random_() % 2 == 0);
                break;
            case 4:
                if (random_() % 64 == 0) {
                    table_.compact();
                }
                break;
            default:
                table_.count(identity, link.parent, link.name, random_() % 2 == 0);
        }
        return ino;
    }

  private:
    std::string name() {
        return std::string(1 + random_() % 60, 'a' + static_cast<char>(random_() % 26));
    }

    NodeTable& table_;
    std::mt19937 random_;
};

// How far a child came, in memory that it shares.
class Progress {
  public:
    Progress() : file_("zcfuse-test", 4096) {}
    std::uint64_t get() const { return reinterpret_cast<volatile std::uint64_t&>(*file_.data()); }
    void set(std::uint64_t done) { publish(reinterpret_cast<std::uint64_t&>(*file_.data()), done); }

  private:
    sys::MemoryFile file_;
};

void kill_after(pid_t child, unsigned microseconds) {
    ::usleep(microseconds);
    ::kill(child, SIGKILL);
    int status = 0;
    CHECK_EQ(::waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

std::map<std::uint64_t, std::string> described(const NodeTable& table) {
    std::map<std::uint64_t, std::string> nodes;
    for (const auto nodeid : table.all()) {
        auto& text = nodes[nodeid];
        text = std::to_string(table.find(nodeid)->identity.ino);
        for (const auto& link : table.links(nodeid)) {
            text += " " + std::to_string(link.parent) + "/" + link.name;
        }
    }
    return nodes;
}

// Leaves out the node of one inode number, whose change was cut short.
void drop(std::map<std::uint64_t, std::string>& nodes, std::uint64_t ino) {
    std::erase_if(
        nodes, [&](const auto& one) { return one.second.starts_with(std::to_string(ino) + " "); });
}

void overwrite(int fd, std::size_t at, std::uint64_t value) {
    CHECK_EQ(::pwrite(fd, &value, sizeof value, static_cast<off_t>(at)),
             static_cast<ssize_t>(sizeof value));
}

std::string refusal(int fd) {
    try {
        const NodeTable table(copy_of(fd));
        return "";
    } catch (const DamagedState& error) {
        return error.what();
    }
}

}  // namespace

TEST("a successor finds each node as it was before a kill at any point") {
    std::mt19937 random(1);
    for (unsigned seed = 1; seed <= 60; ++seed) {
        NodeTable table;
        Progress progress;
        const pid_t child = ::fork();
        checked(child, "fork");
        if (child == 0) {
            Changes changes(table, seed);
            for (std::uint64_t done = 0;; ++done) {
                progress.set(done);
                changes.next();
            }
        }
        kill_after(child, 500 + static_cast<unsigned>(random() % 8000));
        const NodeTable taken(copy_of(table.memory()));

        NodeTable model;
        Changes again(model, seed);
        for (auto left = progress.get(); left > 0; --left) {
            again.next();
        }
        auto wanted = described(model);
        auto found = described(taken);
        const auto interrupted = again.next();
        drop(wanted, interrupted);
        drop(found, interrupted);
        CHECK(found == wanted);
        CHECK(!wanted.empty() || progress.get() < 100);
    }
}

TEST("a successor of a successor goes on with lookups, marks and numbers") {
    auto first = std::make_unique<NodeTable>();
    const auto memory = copy_of(first->memory());
    const Identity file{5, 6, 1, S_IFREG};
    const auto nodeid = first->count(file, 1, "name", false);
    first->count(file, 1, "name", false);
    first->set_revoked(nodeid, true);
    first->unchanged(nodeid, 3, 4, true);
    first.reset();

    auto second = std::make_unique<NodeTable>(copy_of(memory.get()));
    CHECK(second->any_revoked());
    CHECK(second->is_revoked(file));
    CHECK(second->unchanged(nodeid, 3, 4, true));
    second->set_revoked(nodeid, false);
    second.reset();

    NodeTable third(copy_of(memory.get()));
    CHECK(!third.any_revoked());
    CHECK(!third.forget(nodeid, 1).gone);
    CHECK(third.forget(nodeid, 1).gone);
    CHECK(third.count(file, 1, "name", false) != nodeid);
}

TEST("compacting a table gives its memory back and keeps its nodes") {
    NodeTable table;
    std::vector<std::uint64_t> nodeids;
    for (std::uint64_t ino = 0; ino < 200'000; ++ino) {
        nodeids.push_back(table.count({ino, 1, 1, S_IFREG}, 1, std::to_string(ino), false));
    }
    const auto resident = [&] {
        struct ::stat status {};
        checked(::fstat(table.memory(), &status), "fstat");
        return status.st_blocks * 512;
    };
    const auto before = resident();
    for (std::size_t i = 0; i < nodeids.size(); ++i) {
        if (i % 10 != 0) {
            table.forget(nodeids[i], 1);
        }
    }
    table.compact();
    CHECK(resident() < before / 4);
    CHECK_EQ(table.size(), nodeids.size() / 10);
    for (std::size_t i = 0; i < nodeids.size(); i += 10) {
        CHECK_EQ(table.find(nodeids[i])->link.name, std::to_string(i));
    }
    const auto wanted = described(table);
    const NodeTable taken(copy_of(table.memory()));
    CHECK(described(taken) == wanted);
}

TEST("a damaged table is refused with what is wrong") {
    NodeTable table;
    for (std::uint64_t ino = 0; ino < 1000; ++ino) {
        table.count({ino, 1, 1, S_IFREG}, 1, "name", false);
    }
    CHECK_EQ(refusal(table.memory()), "");
    const auto copy = copy_of(table.memory());

    overwrite(copy.get(), 8, 99);
    CHECK(refusal(copy.get()).find("layout 99") != std::string::npos);
    overwrite(copy.get(), 0, 0);
    CHECK(refusal(copy.get()).find("no table of nodes") != std::string::npos);
    CHECK_EQ(::ftruncate(copy.get(), 4096), 0);
    CHECK(refusal(copy.get()).find("too short") != std::string::npos);
}

TEST("a table with a changed record is refused") {
    NodeMemory memory;
    {
        const NodeTable table(copy_of(memory.fd()));
        CHECK_EQ(table.size(), std::size_t{0});
    }
    NodeTable table(copy_of(memory.fd()));
    const auto nodeid = table.count({1, 1, 1, S_IFREG}, 1, "name", false);
    const auto shard = nodeid % NodeMemory::kShards;
    auto& record = memory.record(shard, 1);
    CHECK_EQ(record.nodeid, nodeid);
    record.birth ^= 1;
    CHECK(refusal(memory.fd()).find("node " + std::to_string(nodeid)) != std::string::npos);
    record.birth ^= 1;
    record.name += 1000;
    CHECK(refusal(memory.fd()).find("node ") != std::string::npos);
    record.name -= 1000;
    memory.shard(shard).records = memory.capacity();
    CHECK(refusal(memory.fd()).find("header of shard") != std::string::npos);
    memory.shard(shard).records = 1;
    CHECK_EQ(refusal(memory.fd()), "");
}

}  // namespace zc::test
