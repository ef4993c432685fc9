// A process that the holder started: it serves the mount, or waits warm until it shall.
//
// The object owns the process: its end kills and reaps it. The child finds its socket at
// kSocketAt, the plan of the mount at kPlanAt and, if it is the first, the pipe for its report at
// kReportAt.
#pragma once

#include <sys/types.h>

#include <optional>

#include "holder/messages.hpp"
#include "sys/unique_fd.hpp"

namespace zc::holder {

constexpr int kSocketAt = 3;
constexpr int kPlanAt = 4;
constexpr int kReportAt = 5;
// Descriptors of the holder itself stay above, so that none is overwritten on its way to a child.
constexpr int kFirstOwn = 16;

struct Command {
    char* const* arguments;  // the program and its arguments, ended by nullptr
    int plan;                // borrowed, like the next
    int report;              // -1: it takes none
    bool own_group;          // out of reach of the terminal's signals
};

// How a process ended.
struct End {
    int signal;  // 0: it exited
    int status;
};

class Child {
  public:
    // Throws std::system_error.
    explicit Child(const Command& command);
    Child(Child&& other) noexcept;
    Child& operator=(Child&& other) noexcept;
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() { end(); }

    int socket() const noexcept { return socket_.get(); }
    // Readable once the process has ended.
    int process() const noexcept { return process_.get(); }

    // The next message, if there is one; `with` gets the descriptor that came along. A socket that
    // the child has closed becomes -1 here, so that no process waits for it.
    std::optional<Message> receive(sys::UniqueFd& with) noexcept;
    // False if the child is gone, or does not read.
    template <typename Sent>
    bool send(const Sent& message, int with = -1) const noexcept {
        return send_bytes(&message, sizeof message, with);
    }
    void signal(int number) const noexcept;
    // Reaps a process that has ended; nothing if it still runs.
    std::optional<End> reap() noexcept;

  private:
    bool send_bytes(const void* bytes, std::size_t size, int with) const noexcept;
    void end() noexcept;

    sys::UniqueFd socket_;
    sys::UniqueFd process_;
};

}  // namespace zc::holder
