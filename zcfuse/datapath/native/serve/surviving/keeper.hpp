// Has the holder keep descriptors of files without a name: a successor cannot open those again.
//
// Thread-safe once it is connected: each message is one call. A call waits while the holder's
// socket is full. Without a holder nothing happens.
#pragma once

#include <charconv>
#include <cstdint>
#include <string_view>

#include "holder/link.hpp"
#include "sys/syscalls.hpp"

namespace zc {

class Keeper {
  public:
    // The names under which the holder has them: this, and the nodeid.
    static constexpr std::string_view kPrefix = "orphan ";

    // Takes a copy of the socket to the holder; call it before threads start. 0 or -errno.
    int connect(int socket) noexcept {
        sys::UniqueFd copy;
        const int error = sys::dup_cloexec(socket, copy);
        link_ = holder::Link(std::move(copy));
        return error;
    }
    bool connected() const noexcept { return link_.socket() >= 0; }

    // They are kept when the call returns, even if this process ends then.
    void keep(std::uint64_t nodeid, int file) const noexcept {
        send(holder::Kind::keep_if_room, nodeid, file);
    }
    void drop(std::uint64_t nodeid) const noexcept { send(holder::Kind::drop, nodeid, -1); }

  private:
    void send(holder::Kind kind, std::uint64_t nodeid, int file) const noexcept {
        if (!connected()) {
            return;
        }
        holder::Message message{kind, {}, {}};
        auto* const number = std::copy(kPrefix.begin(), kPrefix.end(), message.text.data());
        std::to_chars(number, message.text.data() + message.text.size(), nodeid);
        link_.send_whenever(message, file);
    }

    holder::Link link_;
};

}  // namespace zc
