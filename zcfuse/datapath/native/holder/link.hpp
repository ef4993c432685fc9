// The holder's end of the socket to a process that serves the mount, or asks to. The object owns
// it.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <utility>

#include "holder/messages.hpp"
#include "sys/unique_fd.hpp"

namespace zc::holder {

class Link {
  public:
    Link() noexcept = default;
    explicit Link(sys::UniqueFd socket) noexcept : socket_(std::move(socket)) {}

    // -1 once the process has closed its end.
    int socket() const noexcept { return socket_.get(); }

    // The next message, if there is one; `with` gets the descriptor that came along. A socket that
    // the process has closed becomes -1 here, so that no poll waits for it.
    std::optional<Message> receive(sys::UniqueFd& with) noexcept;
    // False if the process is gone, or does not read.
    template <typename Sent>
    bool send(const Sent& message, int with = -1) const noexcept {
        return send_bytes(&message, sizeof message, with);
    }

    // Waits until there is room, for some seconds.
    template <typename Sent>
    bool send_whenever(const Sent& message, int with = -1) const noexcept {
        return send_bytes_whenever(&message, sizeof message, with);
    }

  private:
    bool send_bytes(const void* bytes, std::size_t size, int with) const noexcept;
    bool send_bytes_whenever(const void* bytes, std::size_t size, int with) const noexcept;

    sys::UniqueFd socket_;
};

// Gives `obey` each message that a process has sent, with the descriptor that came along, until
// there is none or the process is gone.
template <typename Process, typename Obey>
void take_messages_of(std::optional<Process>& process, Obey obey) {
    sys::UniqueFd with;
    while (process) {
        const auto message = process->receive(with);
        if (!message) {
            return;
        }
        obey(*message, std::move(with));
    }
}

// The time left until then for poll(2), an hour at most; -1 for never.
int poll_milliseconds(std::chrono::steady_clock::time_point until) noexcept;

}  // namespace zc::holder
