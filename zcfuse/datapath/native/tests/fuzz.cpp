// Feeds messages of a kernel and of control to the dispatcher and the relay, by every serving path,
// without a mount and without threads. Checks that a well-formed request is answered, or becomes an
// upcall, exactly once, and other messages never.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <span>

#include "fuzz_format.hpp"
#include "fuzz_layers.hpp"
#include "player.hpp"
#include "sample_index.hpp"
#include "serve/relay.hpp"
#include "serve/server.hpp"
#include "serve/sources/directory_source.hpp"
#include "serve/sources/index_source.hpp"

namespace zc::test {

namespace {

constexpr std::size_t kFileSize = 100'000;
constexpr std::chrono::seconds kNow{0};
const auto kNobodyCounts = [](const Upcall&) {};

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

// One data path by one serving path. It lives as long as the process, because creating one takes
// far longer than a message.
class Target {
  public:
    Target(const char* path, bool immutable, const FuzzLayers& layers)
        : Target(configured(path, immutable), socket_pair(), layers) {}

    void run(std::span<const std::uint8_t> bytes) {
        while (!bytes.empty()) {
            take(take_step(bytes));
        }
        state_->upcalls.expire(kNow, kNobodyCounts);
        settle();
        state_->leased_nodes.clear();  // no RELEASE follows: descriptors would run out
    }

  private:
    static Config configured(const char* path, bool immutable) {
        auto config = by(path);
        config.immutable = immutable;
        // An upcall that expired holds its task until control's late reply, which never comes here.
        config.control_tasks = std::size_t{1} << 40;
        return config;
    }

    Target(const Config& config, std::pair<sys::UniqueFd, Peer> channel, const FuzzLayers& layers)
        : name_(config.path + (config.immutable ? ", immutable" : "")),
          file_(kFileSize),
          player_(config, /*started=*/false),
          kernel_(std::move(channel.second)),
          // Shares ownership of the state, which the data path keeps.
          state_(player_.path, &player_.path->state()),
          server_(state_, std::make_shared<const DeviceChannel>(std::move(channel.first), false)),
          relay_(state_) {
        player_.install(kWholeNode, file_);
        const InstallExtent pieces[] = {
            {file_.fd(), 10, 5000}, {file_.fd(), 8192, 4096}, {file_.fd(), 50'000, kWholeFile}};
        player_.path->install(kPiecesNode, pieces);
        const sys::UniqueFd directory(::open("/usr/include", O_PATH | O_DIRECTORY | O_CLOEXEC));
        if (directory) {
            state_->leased_nodes.lease(abi::kRootId, DirectorySource::open(directory.get()));
        }
        const auto archive = IndexSource::make(sample_index(file_));
        layers.lease(state_->leased_nodes, kUnionNode, archive);
        state_->leased_nodes.lease(kArchiveNode, archive);
        const Bytes offered = init_request(2);
        state_->negotiation.offered(std::as_bytes(std::span(offered)), true);
        abi::InitOut init{};
        state_->negotiation.amend(init);
    }

    // The current node of a name in a leased directory; looks it up if forgotten.
    std::uint64_t node_of(std::uint64_t& known, std::uint64_t parent, const char* name) {
        if (!state_->leased_nodes.nodes().find(known)) {
            const Bytes message = request(abi::Opcode::lookup, 2, parent,
                                          std::string_view(name, std::strlen(name) + 1));
            server_.dispatch(std::as_bytes(std::span(message)));
            known = structure_at<abi::EntryOut>(kernel_.receive(0), sizeof(abi::OutHeader)).nodeid;
            settle();
        }
        return known;
    }

    // Inserts the node that a message refers to.
    void address(Bytes& message) {
        auto header = structure_at<abi::InHeader>(message, 0);
        if (message.size() < sizeof header) {
            return;
        }
        if (header.nodeid == kLeasedFile) {
            header.nodeid = node_of(leased_file_, abi::kRootId, "stdio.h");
        } else if (header.nodeid == kLeasedDirectory) {
            header.nodeid = node_of(leased_directory_, abi::kRootId, "linux");
        } else if (header.nodeid == kUnionFile) {
            header.nodeid = node_of(union_file_, kUnionNode, "file");
        } else if (header.nodeid == kUnionDirectory) {
            header.nodeid = node_of(union_directory_, kUnionNode, "merged");
        }
        const auto member = header.nodeid - kFirstMember;
        if (member < kMembers) {
            header.nodeid = node_of(members_[member], kArchiveNode, kMemberNames[member]);
        }
        std::memcpy(message.data(), &header, sizeof header);
    }

    void take(ParsedStep step) {
        switch (step.step) {
            case Step::from_kernel:
                from_kernel(std::move(step.message));
                break;
            case Step::from_control:
                from_control(step.message);
                break;
            default:
                state_->upcalls.expire(kNow, kNobodyCounts);
                settle();
        }
    }

    void from_control(Bytes message) {
        relay_.route(std::as_writable_bytes(std::span(message)));
        settle();
    }

    // The relay thread's work between two messages.
    int settle() {
        state_->upcalls.send_overflow(kNobodyCounts);
        return drain(kernel_) + drain(player_.control);
    }

    void from_kernel(Bytes message) {
        address(message);
        server_.dispatch(std::as_bytes(std::span(message)));
        const int answers = settle();
        const auto header = structure_at<abi::InHeader>(message, 0);
        const bool whole = message.size() >= sizeof header && header.len == message.size();
        if (!whole && answers != 0) {
            give_up(name_.c_str(), header, answers);
        }
        const bool ours = (header.unique >> 62) != 0;  // beyond any kernel's count
        if (whole && !ours && wants_reply(header.opcode) && answers != 1) {
            give_up(name_.c_str(), header, answers);
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

    const std::string name_;
    const File file_;
    Player player_;
    Peer kernel_;
    std::shared_ptr<State> state_;
    Server server_;
    Relay relay_;
    std::uint64_t leased_file_ = 0;
    std::uint64_t leased_directory_ = 0;
    std::uint64_t union_file_ = 0;
    std::uint64_t union_directory_ = 0;
    std::array<std::uint64_t, kMembers> members_{};
};

}  // namespace

}  // namespace zc::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using zc::test::Target;
    static const zc::test::FuzzLayers layers;
    static const auto targets = [] {
        std::vector<std::unique_ptr<Target>> made;
        for (const char* path : {"auto", "upcall", "pool", "mmap", "splice"}) {
            made.push_back(std::make_unique<Target>(path, /*immutable=*/false, layers));
        }
        for (const char* path : {"auto", "mmap"}) {
            made.push_back(std::make_unique<Target>(path, /*immutable=*/true, layers));
        }
        return made;
    }();
    for (const auto& target : targets) {
        target->run({data, size});
    }
    return 0;
}
