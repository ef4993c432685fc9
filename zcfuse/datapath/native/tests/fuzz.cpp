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
    explicit Target(const char* path) : Target(path, socket_pair()) {}

    void run(std::span<const std::uint8_t> bytes) {
        while (!bytes.empty()) {
            take(take_step(bytes));
        }
        state_->upcalls.expire(kNow);
        settle();
    }

  private:
    Target(const char* path, std::pair<sys::UniqueFd, Peer> channel)
        : name_(path),
          file_(kFileSize),
          player_(by(path), /*started=*/false),
          kernel_(std::move(channel.second)),
          // Shares the owner of the state, which the data path keeps for itself.
          state_(player_.path, &player_.path->state()),
          server_(state_, std::make_shared<const DeviceChannel>(std::move(channel.first), false)),
          relay_(state_) {
        player_.install(kWholeNode, file_);
        const InstallExtent pieces[] = {
            {file_.fd(), 10, 5000}, {file_.fd(), 8192, 4096}, {file_.fd(), 50'000, kWholeFile}};
        player_.path->install(kPiecesNode, pieces);
        const sys::UniqueFd directory(::open("/usr/include", O_PATH | O_DIRECTORY | O_CLOEXEC));
        if (directory) {
            state_->mirrors.lease(abi::kRootId, directory.get());
        }
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
        return drain(kernel_) + drain(player_.control);
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
    Player player_;
    Peer kernel_;
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
