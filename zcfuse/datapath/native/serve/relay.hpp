// The relay thread takes control's replies off the upcall socket, amends them, and writes each to
// the channel of its request. It also sends queued upcalls to control and drops those that waited
// too long. It never blocks on control, so that it always drains control's blocking writes.
#pragma once

#include <memory>
#include <span>

#include "serve/amend.hpp"
#include "serve/pool_buffer.hpp"
#include "serve/state.hpp"

namespace zc {

class Relay {
  public:
    explicit Relay(std::shared_ptr<State> state);

    void run() noexcept;
    // One message from control. Public for the tests that make them up.
    void route(std::span<std::byte> message);

  private:
    void forward_until_end();
    bool drain();
    bool send_on();
    void look_through();
    void relieve_queues();
    void given_up(const Upcall& upcall) noexcept;
    void forward(const Upcall& upcall, std::uint64_t unique, std::span<std::byte> message);

    std::shared_ptr<State> state_;
    std::shared_ptr<ThreadCounts> counts_;
    Amender amender_;
    PoolBuffer buffer_;
    Served served_;  // the READ that was forwarded last
};

}  // namespace zc
