// Memory that outlives a process, for the tests: copies of its descriptor, and the kill.
#pragma once

#include <fcntl.h>
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

// Runs `body` over and over in a child, with the number of the turn, and kills that.
template <typename Body>
void kill_in(unsigned microseconds, Body body) {
    const pid_t child = ::fork();
    checked(child, "fork");
    if (child == 0) {
        for (std::uint64_t turn = 1;; ++turn) {
            body(turn);
        }
    }
    ::usleep(microseconds);
    ::kill(child, SIGKILL);
    CHECK_EQ(::waitpid(child, nullptr, 0), child);
}

}  // namespace zc::test
