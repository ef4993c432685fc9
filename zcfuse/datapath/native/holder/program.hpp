// A program that serves the mount, or asks to. It is no child: its own parent reaps it, and nothing
// here ends it.
#pragma once

#include <optional>

#include "holder/link.hpp"

namespace zc::holder {

class Program : public Link {
  public:
    // Nothing for a process of another user, or one that has ended. The kernel says who it is.
    static std::optional<Program> connected(sys::UniqueFd socket) noexcept;

    // Readable once all threads of the process have ended.
    int process() const noexcept { return process_.get(); }
    // Whether nothing of the process can read or answer a request any more: it has ended, or it
    // became another program (execve(2)), or it stopped serving and then closed its end.
    bool ended() const noexcept;

  private:
    Program(sys::UniqueFd socket, sys::UniqueFd process) noexcept
        : Link(std::move(socket)), process_(std::move(process)) {}

    sys::UniqueFd process_;
};

}  // namespace zc::holder
