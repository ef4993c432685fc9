// Feeds what a kernel and a control might say to the dispatcher and the relay, by every serving
// path, without a mount and without threads of its own; checks that a well-formed request is
// answered, or handed up, exactly once, and that no other message is.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>

#include "fuzz_format.hpp"
#include "player.hpp"
#include "serve/relay.hpp"
#include "serve/server.hpp"

namespace zc::test {

namespace {

constexpr std::size_t kFileSize = 100'000;
constexpr std::size_t kPipeSlots = 256;
constexpr std::chrono::seconds kNow{0};

bool wants_reply(std::uint32_t opcode) {
    switch (static_cast<abi::Opcode>(opcode)) {
        case abi::Opcode::forget:
        case abi::Opcode::batch_forget:
        case abi::Opcode::interrupt:
        case abi::Opcode::notify_reply:
            return false;
        default:
            return true;
    }
}

[[noreturn]] void give_up(const char* path, const abi::InHeader& header, int answers) {
    std::fprintf(stderr, "by path %s: %s of %u bytes, node %llu, was answered %d times\n", path,
                 std::string(abi::opcode_name(header.opcode)).c_str(), header.len,
                 static_cast<unsigned long long>(header.nodeid), answers);
    std::abort();
}

// One data path by one serving path. It lives as long as the process: making one takes far longer
// than a message.
class Target {
  public:
    explicit Target(const char* path) : Target(path, socket_pair(), socket_pair()) {}

    void run(std::span<const std::uint8_t> bytes) {
        while (!bytes.empty()) {
            take(take_step(bytes));
        }
        state_->upcalls.expire(kNow);
        settle();
    }

  private:
    using Pair = std::pair<sys::UniqueFd, Peer>;
    Target(const char* path, Pair channel, Pair upcalls)
        : name_(path),
          file_(kFileSize),
          kernel_(std::move(channel.second)),
          control_(std::move(upcalls.second)),
          channel_(std::make_shared<const Channel>(std::move(channel.first), /*device=*/false)),
          state_(make_state(path, std::move(upcalls.first))),
          server_(state_, channel_),
          relay_(state_) {
        lease(kWholeNode, {{.file = copy(), .id = 1}});
        lease(kPiecesNode, {{.file = copy(), .id = 2, .offset = 10, .length = 5000},
                            {.file = copy(), .id = 3, .offset = 8192, .length = 4096},
                            {.file = copy(), .id = 4, .offset = 50'000}});
    }

    static std::shared_ptr<State> make_state(const char* path, sys::UniqueFd upcalls) {
        const Config config = by(path);
        auto state =
            std::make_shared<State>(config, std::move(upcalls), choose_limits(config, kPipeSlots));
        state->budget = std::make_shared<LockBudget>(config.lock_budget);
        state->windows = std::make_shared<WindowCache>(state->budget, WindowOptions{});
        return state;
    }

    std::shared_ptr<const sys::UniqueFd> copy() const {
        auto fd = std::make_shared<sys::UniqueFd>();
        CHECK_EQ(sys::dup_cloexec(file_.fd(), *fd), 0);
        return fd;
    }

    void lease(std::uint64_t nodeid, std::vector<Extent> extents) {
        state_->leases.put(nodeid, std::make_shared<const FileLease>(std::move(extents), nullptr,
                                                                     state_->windows));
    }

    void take(const ParsedStep& step) {
        switch (step.step) {
            case Step::from_kernel:
                from_kernel(step.message);
                break;
            case Step::from_control:
                from_control(step.message);
                break;
            default:
                state_->upcalls.expire(kNow);
                settle();
        }
    }

    void from_control(Bytes message) {
        relay_.route(std::as_writable_bytes(std::span(message)));
        settle();
    }

    // What a relay thread would do between two messages.
    int settle() {
        state_->upcalls.send_overflow();
        return drain(kernel_) + drain(control_);
    }

    void from_kernel(const Bytes& message) {
        server_.dispatch(std::as_bytes(std::span(message)));
        const int answers = settle();
        const auto header = structure_at<abi::InHeader>(message, 0);
        const bool whole = message.size() >= sizeof header && header.len == message.size();
        if (!whole && answers != 0) {
            give_up(name_, header, answers);
        }
        const bool ours = (header.unique >> 62) != 0;  // no kernel has counted so far
        if (whole && !ours && wants_reply(header.opcode) && answers != 1) {
            give_up(name_, header, answers);
        }
    }

    static int drain(const Peer& peer) {
        std::array<std::uint8_t, sizeof(abi::InHeader)> start{};
        int messages = 0;
        while (::recv(peer.fd(), start.data(), start.size(), MSG_DONTWAIT | MSG_TRUNC) > 0) {
            ++messages;
        }
        return messages;
    }

    const char* name_;
    const File file_;
    Peer kernel_;
    Peer control_;
    std::shared_ptr<const Channel> channel_;
    std::shared_ptr<State> state_;
    Server server_;
    Relay relay_;
};

}  // namespace

}  // namespace zc::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using zc::test::Target;
    static const auto targets = [] {
        std::vector<std::unique_ptr<Target>> made;
        for (const char* path : {"auto", "upcall", "pool", "mmap", "splice"}) {
            made.push_back(std::make_unique<Target>(path));
        }
        return made;
    }();
    for (const auto& target : targets) {
        target->run({data, size});
    }
    return 0;
}
