// Keeps a mount alive over the death of the process that serves it.
//
// One thread, which owns everything here. It holds descriptors, waits for processes to end, and
// gives what it holds to a warm standby. It reads nothing of clients, and allocates nothing after
// its start: a machine without memory kills daemons, and then the holder has to work.
//
//   first child --warm--> go --serving--> a standby is started --warm--> it waits
//   the serving child ends --reaped--> the standby gets descriptors and go --serving--> the next
//
// A standby takes over only after the dead process is reaped: the kernel then has let go of what
// the process was about to read or answer, and may be asked to send it again.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "holder/child.hpp"
#include "holder/history.hpp"
#include "holder/kept.hpp"

namespace zc::holder {

struct Settings {
    char* const* first;       // arguments of the first child
    char* const* successors;  // and of all others
    sys::UniqueFd plan;       // given to each
    sys::UniqueFd report;     // given to the first; closed once it serves
    bool background;
    bool drops_error_output;  // once the mount answers
};

class Holder {
  public:
    // Throws std::system_error.
    explicit Holder(Settings settings);

    // Returns the exit status for the holder: that of a child that ended the mount, or 1.
    int run();

  private:
    using Clock = std::chrono::steady_clock;

    void wait_for_events();
    void take_signals();
    void take_messages_of_serving();
    void take_messages_of_standby();
    void settle_serving();
    void settle_standby();
    void settle_time();

    void obey(const Message& message, sys::UniqueFd with);
    void begin_service() noexcept;
    void promote();
    void replace_standby();
    void start_standby();
    void note_failure() noexcept;
    void finish(int status) noexcept { status_ = status; }
    Clock::time_point deadline() const noexcept;

    Settings settings_;
    sys::UniqueFd signals_;
    sys::UniqueFd null_;
    KeptDescriptors kept_;
    std::optional<Child> serving_;
    std::optional<Child> standby_;
    std::array<char, kTextBytes> layout_{};
    bool warm_ = false;      // the standby
    bool answers_ = false;   // the serving child
    bool over_ = false;      // the serving child ends the mount
    bool planned_ = false;   // the serving child hands over
    bool renewing_ = false;  // the serving child waits for another standby
    bool stopping_ = false;
    unsigned failures_ = 0;  // starts in a row that came to nothing
    Clock::time_point not_before_{};
    Clock::time_point until_ = Clock::time_point::max();          // for the serving child to answer
    Clock::time_point standby_until_ = Clock::time_point::max();  // for the standby to be warm
    History history_;
    std::optional<int> status_;
};

}  // namespace zc::holder
