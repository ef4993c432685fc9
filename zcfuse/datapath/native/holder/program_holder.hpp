// Keeps a mount over the end of the program that serves it, for as long as the user allowed.
//
// One thread, which owns everything here, as in Holder. The holder starts no process: somebody
// starts a program that asks for the mount.
//
//   first program --warm--> go --serving--> it serves
//   it ends --> the holder waits, and clients with it --a program: warm--> descriptors and go
//   nobody came in time, or a command asked for the end --> the descriptors close, and with them
//   the connection: clients get ENOTCONN
//
// A program is refused while another one serves, or if its state has another layout.
#pragma once

#include <sys/stat.h>

#include <array>
#include <chrono>
#include <optional>
#include <string_view>

#include "holder/history.hpp"
#include "holder/kept.hpp"
#include "holder/program.hpp"

namespace zc::holder {

// The listening socket's file. It goes with the holder, unless a later mount has the name by then.
class SocketFile {
  public:
    SocketFile() noexcept = default;
    SocketFile(const SocketFile&) = delete;
    SocketFile& operator=(const SocketFile&) = delete;
    ~SocketFile() { leave(); }

    void take(sys::UniqueFd directory, const std::array<char, kTextBytes>& name) noexcept;
    void leave() noexcept;

  private:
    sys::UniqueFd directory_;
    std::array<char, kTextBytes> name_{};
    ino_t number_ = 0;
};

class ProgramHolder {
  public:
    // `first`: the socket of the program that mounts. `wait`: for the next one, once one has ended.
    ProgramHolder(sys::UniqueFd first, std::chrono::milliseconds wait);

    // Returns once the mount has ended.
    void run();

  private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::size_t kMostAsking = 8;

    void wait_for_events();
    void take_connections();
    void take_messages_of_serving();
    void take_messages(std::optional<Program>& asking);
    void obey(const Message& message, sys::UniqueFd with);
    void promote(std::optional<Program>& asking, const std::array<char, kTextBytes>& layout);
    void settle();
    void finish() noexcept { over_ = true; }
    StateNow state() const noexcept;
    // The session's descriptor; -1 before the mount.
    int session() const noexcept;

    std::chrono::milliseconds wait_;
    SocketFile socket_file_;
    sys::UniqueFd listener_;
    KeptDescriptors kept_;
    std::optional<Program> serving_;
    std::array<std::optional<Program>, kMostAsking> asking_;
    std::array<char, kTextBytes> layout_{};
    bool answered_ = false;  // some program has served
    bool answers_ = false;   // the serving one does
    bool planned_ = false;   // the serving one leaves the mount
    bool ending_ = false;    // the serving one ends the mount
    bool over_ = false;
    Clock::time_point until_ = Clock::time_point::max();
    History history_;
};

}  // namespace zc::holder
