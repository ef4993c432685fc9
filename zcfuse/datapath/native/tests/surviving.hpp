// Memory that outlives a process, for the tests: copies of its descriptor, and the kill.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>

#include "check.hpp"
#include "files.hpp"

namespace zc::test {

inline sys::UniqueFd copy_of(int fd) {
    sys::UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    checked(copy.get(), "dup");
    return copy;
}

// Runs `body` over and over in a child, with the number of the turn. Kills the child
// `microseconds` after its first turn, which a busy machine may start late.
template <typename Body>
void kill_in(unsigned microseconds, Body body) {
    sys::UniqueFd started;
    sys::UniqueFd start;
    CHECK_EQ(sys::pipe_pair(started, start), 0);
    const pid_t child = ::fork();
    checked(child, "fork");
    if (child == 0) {
        body(1);
        if (::write(start.get(), "", 1) != 1) {
            ::_exit(1);
        }
        for (std::uint64_t turn = 2;; ++turn) {
            body(turn);
        }
    }
    pollfd first_turn{started.get(), POLLIN, 0};
    constexpr int kMostMilliseconds = 30'000;
    const int turned = ::poll(&first_turn, 1, kMostMilliseconds);
    ::usleep(microseconds);
    ::kill(child, SIGKILL);
    CHECK_EQ(::waitpid(child, nullptr, 0), child);
    CHECK_EQ(turned, 1);
}

}  // namespace zc::test
