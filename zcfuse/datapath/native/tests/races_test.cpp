// Many threads against one data path, mainly for ThreadSanitizer.
#include <atomic>
#include <random>

#include "check.hpp"
#include "player.hpp"

namespace zc::test {

namespace {

constexpr std::uint64_t kNodes = 4;
constexpr std::uint64_t kFirstNode = 2;
constexpr std::size_t kFileSize = 200'000;
constexpr std::uint32_t kMostRead = 64 << 10;

// A minimal control: answers every READ upcall until stopped.
class Control {
  public:
    explicit Control(const Peer& peer) : peer_(peer), thread_([this] { answer(); }) {}
    ~Control() {
        stopping_ = true;
        thread_.join();
    }
    Control(const Control&) = delete;
    Control& operator=(const Control&) = delete;
    int answered() const { return answered_; }

  private:
    void answer() {
        try {
            answer_until_stopped();
        } catch (const Failure&) {
            return;  // the data path has closed its end
        }
    }

    void answer_until_stopped() {
        while (!stopping_) {
            const Bytes message = peer_.receive(20);
            if (message.empty()) {
                continue;
            }
            const auto header = structure_at<abi::InHeader>(message, 0);
            const auto read = structure_at<abi::ReadIn>(message, sizeof header);
            Bytes answer = reply(header.unique, 0);
            const auto bytes = patterned(read.offset, read.size);
            answer.insert(answer.end(), bytes.begin(), bytes.end());
            abi::OutHeader out = header_of(answer);
            out.len = static_cast<std::uint32_t>(answer.size());
            std::memcpy(answer.data(), &out, sizeof out);
            peer_.send(answer);
            ++answered_;
        }
    }

    const Peer& peer_;
    std::atomic<bool> stopping_{false};
    std::atomic<int> answered_{0};
    std::thread thread_;
};

// The kernel: keeps `ahead` READs in flight and returns the number of wrong or missing replies.
int play_kernel(const Peer& kernel, int count, int ahead) {
    struct Asked {
        std::uint64_t offset;
        std::uint32_t size;
    };
    std::vector<Asked> asked;
    std::mt19937_64 random(5);
    int wrong = 0;
    for (int done = 0; done < count; ++done) {
        while (static_cast<int>(asked.size()) < std::min(count, done + ahead)) {
            const auto size = static_cast<std::uint32_t>(1 + random() % kMostRead);
            const Asked next{random() % (kFileSize - size), size};
            asked.push_back(next);
            kernel.send(read_request(2 * asked.size(), kFirstNode + random() % kNodes, next.offset,
                                     next.size));
        }
        const Bytes answer = kernel.receive();
        const std::uint64_t index = header_of(answer).unique / 2 - 1;
        wrong += index >= asked.size() || header_of(answer).error != 0 ||
                         body_of(answer) != patterned(asked[index].offset, asked[index].size)
                     ? 1
                     : 0;
    }
    return wrong;
}

}  // namespace

TEST("leases come and go while READs are served by each path") {
    const File file(kFileSize);
    for (const char* path : {"auto", "pool", "mmap", "splice"}) {
        Player player(by(path));
        const Control control(player.control);
        std::atomic<bool> done{false};
        std::thread changer([&] {
            std::mt19937_64 random(6);
            while (!done) {
                const std::uint64_t nodeid = kFirstNode + random() % kNodes;
                player.install(nodeid, file);
                player.path->state().numbers.set(nodeid, random());
                player.path->revoke(kFirstNode + random() % kNodes);
            }
        });
        const int wrong = play_kernel(player.kernel, 600, 8);
        done = true;
        changer.join();
        CHECK_EQ(wrong, 0);
    }
}

TEST("statistics are read and notifications sent while requests are served") {
    const File file(kFileSize);
    Player player(by("mmap"));
    player.install(kFirstNode, file);
    const Control control(player.control);
    std::atomic<bool> done{false};
    std::thread reader([&] {
        while (!done) {
            player.sum(Path::mmap, &PathCounts::bytes);
            player.path->state().windows->stats();
            player.path->state().upcalls.statistics();
            player.path->state().ledger.fallbacks();
            player.path->state().negotiation.outcome();
        }
    });
    const int wrong = play_kernel(player.kernel, 400, 8);
    done = true;
    reader.join();
    CHECK_EQ(wrong, 0);
}

TEST("a stop in the middle of the traffic is clean and bounded") {
    const File file(kFileSize);
    for (int round = 0; round < 5; ++round) {
        Player player(by(round % 2 == 0 ? "mmap" : "splice"));
        for (std::uint64_t nodeid = kFirstNode; nodeid < kFirstNode + kNodes / 2; ++nodeid) {
            player.install(nodeid, file);
        }
        const Control control(player.control);
        std::thread kernel([&] {
            try {
                play_kernel(player.kernel, 40, 8);
            } catch (const Failure&) {
                return;  // without a reader now
            }
        });
        std::this_thread::sleep_for(std::chrono::milliseconds(5 * round));
        CHECK(player.path->stop());
        player.path.reset();  // closes the channel, which ends the kernel's wait
        kernel.join();
    }
}

TEST("a peer that closes in the middle of the traffic ends the connection") {
    const File file(kFileSize);
    Player player;
    player.install(kFirstNode, file);
    const Control control(player.control);
    for (std::uint64_t i = 1; i <= 100; ++i) {
        player.kernel.send(read_request(2 * i, kFirstNode + i % kNodes, i, 1000));
    }
    player.kernel.close();
    CHECK(player.over_within(5000));
    CHECK(player.path->stop());
}

}  // namespace zc::test
