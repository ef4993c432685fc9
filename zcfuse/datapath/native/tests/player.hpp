// A data path between two sockets: the test plays the kernel on one and control on the other.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "check.hpp"
#include "files.hpp"
#include "messages.hpp"
#include "serve/datapath.hpp"

namespace zc::test {

// One end of a SEQPACKET pair; every wait is bounded.
class Peer {
  public:
    explicit Peer(sys::UniqueFd fd) : fd_(std::move(fd)) {}

    void send(const Bytes& message) const {
        const auto n = ::send(fd_.get(), message.data(), message.size(), MSG_NOSIGNAL);
        CHECK_EQ(n, static_cast<ssize_t>(message.size()));
    }
    // The next message; empty if none arrived or the other end is closed.
    Bytes receive(int milliseconds = 5000) const {
        pollfd polled{fd_.get(), POLLIN, 0};
        if (::poll(&polled, 1, milliseconds) != 1) {
            return {};
        }
        const auto size = ::recv(fd_.get(), nullptr, 0, MSG_DONTWAIT | MSG_PEEK | MSG_TRUNC);
        Bytes message(size > 0 ? static_cast<std::size_t>(size) : 0);
        const auto n = ::recv(fd_.get(), message.data(), message.size(), MSG_DONTWAIT);
        message.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
        return message;
    }
    // Long enough to notice an unexpected message.
    bool silent() const { return receive(50).empty(); }
    void close() { fd_.reset(); }
    int fd() const { return fd_.get(); }

  private:
    sys::UniqueFd fd_;
};

inline std::pair<sys::UniqueFd, Peer> socket_pair() {
    constexpr int kBuffer = 4 << 20;
    std::array<int, 2> ends{};
    checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), "socketpair");
    for (const int end : ends) {
        for (const int option : {SO_SNDBUF, SO_SNDBUFFORCE}) {  // the second needs CAP_NET_ADMIN
            ::setsockopt(end, SOL_SOCKET, option, &kBuffer, sizeof kBuffer);
        }
    }
    return {sys::UniqueFd(ends[0]), Peer(sys::UniqueFd(ends[1]))};
}

struct Player {
    explicit Player(Config config = {}, bool started = true)
        : Player(std::move(config), started, socket_pair(), socket_pair()) {}

    // Leases `file` whole as that node.
    void install(std::uint64_t nodeid, const File& file) {
        const InstallExtent extent{file.fd(), 0, kWholeFile};
        path->install(nodeid, {&extent, 1});
    }

    Bytes ask(const Bytes& message) const {
        kernel.send(message);
        return kernel.receive();
    }
    Bytes read(std::uint64_t offset, std::uint32_t size, std::uint64_t nodeid = 2) {
        unique += 2;
        const Bytes answer = ask(read_request(unique, nodeid, offset, size));
        CHECK_EQ(header_of(answer).unique, unique);
        CHECK_EQ(header_of(answer).error, 0);
        CHECK_EQ(header_of(answer).len, answer.size());
        return body_of(answer);
    }
    int read_error(std::uint64_t offset, std::uint32_t size, std::uint64_t nodeid = 2) {
        unique += 2;
        return header_of(ask(read_request(unique, nodeid, offset, size))).error;
    }

    // The sum over all threads for a serving path or a reason.
    std::uint64_t sum(Path which, Count PathCounts::*count) const {
        std::uint64_t total = 0;
        for (const auto& thread : path->state().ledger.threads()) {
            total += (thread->path(which).*count).get();
        }
        return total;
    }
    std::uint64_t sum(Reason reason) const {
        std::uint64_t total = 0;
        for (const auto& thread : path->state().ledger.threads()) {
            total += thread->reasons[static_cast<std::size_t>(reason)].get();
        }
        return total;
    }

    bool over_within(int milliseconds) const {
        pollfd polled{path->state().ending.event(), POLLIN, 0};
        return ::poll(&polled, 1, milliseconds) == 1;
    }

    Peer kernel;
    Peer control;
    std::shared_ptr<DataPath> path;
    std::uint64_t unique = 1000;

  private:
    using Pair = std::pair<sys::UniqueFd, Peer>;
    Player(Config config, bool started, Pair channel, Pair upcalls)
        : kernel(std::move(channel.second)), control(std::move(upcalls.second)) {
        config.threads = config.threads > 0 ? config.threads : 2;
        path = std::make_shared<DataPath>(channel.first.release(), upcalls.first.release(), config,
                                          /*device=*/false);
        if (started) {
            path->start();
        }
    }
};

inline Config by(const char* path) {
    Config config;
    config.path = path;
    return config;
}

}  // namespace zc::test
