// Directory leases: many threads of the data path against an outsider, a revoking control and a
// forgetting kernel, mainly for ThreadSanitizer. And the cost of a node.
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <random>
#include <string>
#include <thread>

#include "abi/fuse_nodes.hpp"
#include "check.hpp"
#include "player.hpp"
#include "serve/nodes/table.hpp"
#include "serve/sources/directory_source.hpp"
#include "serve/sources/overlay.hpp"

namespace zc::test {

namespace {

namespace fs = std::filesystem;

constexpr int kFiles = 40;

class SourceTree {
  public:
    SourceTree() {
        std::string pattern = (fs::temp_directory_path() / "zcfuse-leases-XXXXXX").string();
        CHECK(::mkdtemp(pattern.data()) != nullptr);
        path_ = pattern;
        fs::create_directories(path_ / "one" / "two");
        for (int i = 0; i < kFiles; ++i) {
            const sys::UniqueFd made(::open(file(i).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
            checked(made.get(), "making a file");
        }
        fs::create_symlink("nowhere", path_ / "link");
    }
    SourceTree(const SourceTree&) = delete;
    SourceTree& operator=(const SourceTree&) = delete;
    ~SourceTree() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }

    fs::path file(int number) const { return path_ / "one" / ("file" + std::to_string(number)); }
    const fs::path& path() const { return path_; }
    // Shows another tree below this one.
    void put_onto(const SourceTree& below) {
        below_ = &below;
        const auto whiteout = path_ / "one" / ".wh.file1";
        checked(sys::UniqueFd(::open(whiteout.c_str(), O_CREAT | O_CLOEXEC, 0644)).get(), "made");
        fs::remove(file(1));
        fs::remove(file(2));
    }
    void lease(DataPath& path) const {
        const sys::UniqueFd root(::open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        if (below_ == nullptr) {
            path.state().leased_nodes.lease(abi::kRootId, DirectorySource::open(root.get()));
            return;
        }
        const sys::UniqueFd lower(::open(below_->path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
        path.state().leased_nodes.lease(
            abi::kRootId,
            OverlaySource::make(
                {DirectorySource::open(root.get()), DirectorySource::open(lower.get())}, true));
    }

  private:
    fs::path path_;
    const SourceTree* below_ = nullptr;
};

struct Client {
    const Player& player;
    std::uint64_t unique = 2;

    // The body of the reply; empty for an error. Skips notifications.
    template <class... Parts>
    Bytes ask(abi::Opcode opcode, std::uint64_t nodeid, const Parts&... parts) {
        unique += 2;
        player.kernel.send(request(opcode, unique, nodeid, parts...));
        for (;;) {
            const Bytes answer = player.kernel.receive();
            if (header_of(answer).unique != 0) {
                CHECK_EQ(header_of(answer).unique, unique);
                return header_of(answer).error == 0 ? body_of(answer) : Bytes{};
            }
            CHECK(!answer.empty());
        }
    }
    std::uint64_t look(std::uint64_t parent, const std::string& name) {
        return structure_at<abi::EntryOut>(ask(abi::Opcode::lookup, parent,
                                               std::string_view(name.c_str(), name.size() + 1)),
                                           0)
            .nodeid;
    }
    void forget(std::uint64_t nodeid) {
        player.kernel.send(request(abi::Opcode::forget, 1, nodeid, abi::ForgetIn{1}));
    }
};

// Answers every upcall with EIO until stopped.
class Refusing {
  public:
    explicit Refusing(const Peer& peer) : thread_([this, &peer] { answer(peer); }) {}
    Refusing(const Refusing&) = delete;
    Refusing& operator=(const Refusing&) = delete;
    ~Refusing() {
        stopping_ = true;
        thread_.join();
    }

  private:
    void answer(const Peer& peer) {
        while (!stopping_) {
            const Bytes message = peer.receive(20);
            const auto header = structure_at<abi::InHeader>(message, 0);
            const auto opcode = static_cast<abi::Opcode>(header.opcode);
            if (!message.empty() && opcode != abi::Opcode::forget &&
                opcode != abi::Opcode::batch_forget) {
                peer.send(reply(header.unique, -EIO));
            }
        }
    }

    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

void use(Client& client, std::mt19937_64& random) {
    const auto directory = client.look(abi::kRootId, "one");
    if (directory == 0) {
        return;
    }
    const auto name = "file" + std::to_string(random() % kFiles);
    if (const auto node = client.look(directory, name); node != 0) {
        client.ask(abi::Opcode::getattr, node, abi::GetattrIn{});
        if (const auto opened = client.ask(abi::Opcode::open, node, abi::OpenIn{});
            opened.size() >= sizeof(abi::OpenOut)) {
            const auto handle = structure_at<abi::OpenOut>(opened, 0).fh;
            client.ask(abi::Opcode::release, node, abi::ReleaseIn{handle, 0, 0, 0});
        }
        abi::ReadIn part{};
        part.size = 1 + static_cast<std::uint32_t>(random() % 8192);
        client.ask(abi::Opcode::read, node, part);
        client.ask(abi::Opcode::getxattr, node, abi::GetxattrIn{},
                   std::string_view("user.none\0", 10));
        client.forget(node);
    }
    const auto opened =
        structure_at<abi::OpenOut>(client.ask(abi::Opcode::opendir, directory, abi::OpenIn{}), 0);
    if (opened.fh != 0) {
        abi::ReadIn read{};
        read.fh = opened.fh;
        read.size = 4096;
        client.ask(abi::Opcode::readdirplus, directory, read);
        client.ask(abi::Opcode::releasedir, directory, abi::ReleaseIn{opened.fh, 0, 0, 0});
    }
    abi::ReadIn some{};
    some.size = 512;
    for (const Bytes listed = client.ask(abi::Opcode::readdirplus, directory, some);
         listed.size() >= sizeof(abi::EntryOut) + sizeof(abi::Dirent) && some.offset == 0;) {
        some.offset = structure_at<abi::Dirent>(listed, sizeof(abi::EntryOut)).off;
        client.ask(abi::Opcode::readdirplus, directory, some);
    }
    client.forget(directory);
}

void race(const SourceTree& tree, Config config) {
    config.threads = 4;
    config.cache_timeout = 1;
    const Player player(config);
    tree.lease(*player.path);
    const Refusing control(player.control);
    std::atomic<bool> done{false};
    std::thread outsider([&] {
        std::error_code ignored;
        for (int i = 0; !done; ++i) {
            fs::rename(tree.path() / "one", tree.path() / "away", ignored);
            fs::create_symlink("away", tree.path() / "one", ignored);
            fs::remove(tree.path() / "one", ignored);
            fs::rename(tree.path() / "away", tree.path() / "one", ignored);
            if (i % 20 == 0) {
                player.path->revoke_directory(abi::kRootId);
                player.path->state().leased_nodes.tidy();
                tree.lease(*player.path);
            }
        }
    });
    Client client{player};
    std::mt19937_64 random(3);
    for (int i = 0; i < 300; ++i) {
        use(client, random);
    }
    done = true;
    outsider.join();
}

}  // namespace

TEST("requests race with revokes and outsiders") {
    race(SourceTree(), by("pool"));
}

TEST("requests for what nobody opened race with revokes and outsiders") {
    auto config = by("auto");
    config.immutable = true;
    race(SourceTree(), config);
}

TEST("requests for a union race with revokes and outsiders") {
    for (const bool immutable : {false, true}) {
        const SourceTree below;
        SourceTree above;
        above.put_onto(below);
        auto config = by("auto");
        config.immutable = immutable;
        race(above, config);
    }
}

TEST("threads race for the nodes of a table") {
    NodeTable table;
    std::atomic<std::uint64_t> lookups{0};
    std::vector<std::thread> threads;
    for (unsigned thread = 0; thread < 4; ++thread) {
        threads.emplace_back([&, thread] {
            std::mt19937_64 random(thread);
            for (int i = 0; i < 20'000; ++i) {
                const Identity identity{random() % 200, 1, 1, S_IFREG};
                const auto node = table.count(identity, 1, "name", i % 3 == 0);
                table.find(node);
                if (table.unchanged(node, 1, 2, true)) {
                    ++lookups;
                }
                table.forget(node, 1);
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK_EQ(table.size(), std::size_t{0});
}

TEST("a node costs less than 200 bytes beside its name") {
    constexpr std::uint64_t kMany = 1'000'000;
    NodeTable table;
    for (std::uint64_t i = 0; i < kMany; ++i) {
        table.count({i, i * 3, 1, S_IFREG}, 1, "name", false);
    }
    CHECK_EQ(table.size(), std::size_t{kMany});
    CHECK(table.bytes() / kMany <= 200);
}

}  // namespace zc::test
