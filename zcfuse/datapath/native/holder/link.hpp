// The holder's end of the socket to a process that serves the mount, or asks to. The object owns
// it.
#pragma once

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

  private:
    bool send_bytes(const void* bytes, std::size_t size, int with) const noexcept;

    sys::UniqueFd socket_;
};

}  // namespace zc::holder
