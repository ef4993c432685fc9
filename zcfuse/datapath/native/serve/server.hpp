// A serving thread: reads requests from its own channel, answers those that a lease covers, and
// hands every other one up.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "serve/ops/operation.hpp"
#include "serve/read.hpp"
#include "serve/ring_reader.hpp"
#include "serve/state.hpp"
#include "serve/statx_upcall.hpp"

namespace zc {

ReadPolicy policy_of(const State& state);

class Server {
  public:
    Server(std::shared_ptr<State> state, std::shared_ptr<const Channel> channel);

    // Serves until the connection ends or the state says stop. Never throws: an exception ends the
    // connection.
    void run() noexcept;

    // One request as the kernel sends it. Public for the tests that make them up.
    void dispatch(std::span<const std::byte> message);

  private:
    // `finished`: answered. `elsewhere`: another thread answers, and counts the latency. `up`:
    // control must answer.
    enum class Fate : std::uint8_t { finished, elsewhere, up };

    void receive_until_end();
    bool still_going(ssize_t error) noexcept;
    Fate serve(const abi::InHeader& header, std::span<const std::byte> body);
    Fate serve_read(const abi::InHeader& header, std::span<const std::byte> body);
    Fate read_by_ring(ReadJob read);
    Fate read_by_channel(ReadJob read);
    Fate serve_lseek(const abi::InHeader& header, std::span<const std::byte> body);
    bool reopened(const abi::InHeader& header);
    Fate serve_init(const abi::InHeader& header, std::span<const std::byte> body);
    Fate serve_interrupt(std::span<const std::byte> body);
    bool withdraw(std::uint64_t unique);
    Fate hand_up_statx(const abi::InHeader& header, std::span<const std::byte> body);
    Fate hand_up(const abi::InHeader& header, std::span<const std::byte> message,
                 std::uint32_t asked_as = 0);

    std::shared_ptr<State> state_;
    std::shared_ptr<const Channel> channel_;
    std::shared_ptr<ThreadCounts> counts_;
    ops::Context context_;
    std::optional<Reader> reader_;  // none on a ring, whose entries are the buffers
    RingReader ring_reader_;
    std::vector<std::byte> buffer_;
    std::vector<Slice> slices_;
    bool handed_up_ = false;        // the request that was dispatched last
    Clock::time_point received_{};  // when the request at hand was taken off the channel
};

}  // namespace zc
