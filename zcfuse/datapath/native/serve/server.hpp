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
// Counts what a thread's reader has taken.
void count_buffers(State& state, const Reader& reader);

class Server {
  public:
    Server(std::shared_ptr<State> state, std::shared_ptr<const Channel> channel);
    // Of a thread for calls, which take()s requests that a serving thread has dispatched.
    explicit Server(std::shared_ptr<State> state);

    // Serves until the connection ends or the state says stop. Never throws: an exception ends the
    // connection.
    void run() noexcept;

    // One request as the kernel sends it. Public for the tests that make them up.
    void dispatch(std::span<const std::byte> message);
    void take(const CallJob& job);

  private:
    // `finished`: answered. `elsewhere`: another thread answers, and counts the latency. `up`:
    // control must answer.
    enum class Fate : std::uint8_t { finished, elsewhere, up };

    void receive_until_end();
    bool still_going(ssize_t error) noexcept;
    void answer(const abi::InHeader& header, std::span<const std::byte> message);
    Fate serve(const abi::InHeader& header, std::span<const std::byte> body);
    Fate serve_here(const abi::InHeader& header, std::span<const std::byte> body);
    bool may_take_long(const abi::InHeader& header, Patience patience) const;
    bool may_ask_disk(const abi::InHeader& header, std::span<const std::byte> body,
                      Patience patience) const;
    Fate call_elsewhere(const abi::InHeader& header, std::span<const std::byte> body);
    Fate serve_read(const abi::InHeader& header, std::span<const std::byte> body);
    bool read_at_once(ReadJob& read);
    bool may_wait(const ReadJob& read);
    Fate serve_lseek(const abi::InHeader& header, std::span<const std::byte> body);
    bool reopened(const abi::InHeader& header, std::span<const std::byte> body);
    Fate serve_init(const abi::InHeader& header, std::span<const std::byte> body);
    Fate serve_interrupt(std::span<const std::byte> body);
    bool withdraw(std::uint64_t unique);
    void heed_early_interrupt(std::uint64_t unique);
    Fate forward_statx(const abi::InHeader& header, std::span<const std::byte> body);
    Fate forward(const abi::InHeader& header, std::span<const std::byte> message,
                 std::uint32_t asked_as = 0);

    std::shared_ptr<State> state_;
    std::shared_ptr<const Channel> channel_;
    std::shared_ptr<ThreadCounts> counts_;
    ops::Context context_;
    const bool calls_ = false;      // not on a channel
    std::optional<Reader> reader_;  // none on a ring, whose entries are the buffers
    RingReader ring_reader_;
    std::vector<std::byte> buffer_;
    std::vector<Slice> slices_;
    bool forwarded_ = false;        // the request that was dispatched last
    Clock::time_point received_{};  // when the request at hand was taken off the channel
};

}  // namespace zc
