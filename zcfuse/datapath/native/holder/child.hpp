// A process that the holder started: it serves the mount, or waits warm until it shall.
//
// The object owns the process: its end kills and reaps it. The child finds its socket at
// kSocketAt, the plan of the mount at kPlanAt and, if it is the first, the pipe for its report at
// kReportAt.
#pragma once

#include <sys/types.h>

#include <optional>

#include "holder/link.hpp"
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

class Child : public Link {
  public:
    // Throws std::system_error.
    explicit Child(const Command& command);
    Child(Child&& other) noexcept;
    Child& operator=(Child&& other) noexcept;
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() { end(); }

    // Readable once the process has ended.
    int process() const noexcept { return process_.get(); }

    void signal(int number) const noexcept;
    // Reaps a process that has ended; nothing if it still runs.
    std::optional<End> reap() noexcept;

  private:
    void end() noexcept;

    sys::UniqueFd process_;
};

}  // namespace zc::holder
