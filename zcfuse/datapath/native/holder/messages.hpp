// The messages between the holder and its children, over one SEQPACKET socket a child. Both are of
// fixed size, and only processes of zcfuse write them: nothing of a client gets here.
// zcfuse/control/survive/_holder.py is the other side.
#pragma once

#include <array>
#include <cstdint>

namespace zc::holder {

enum class Kind : std::uint8_t {
    // From a child.
    keep = 'K',          // with a descriptor: hold it under the name
    warm = 'S',          // ready to take over; the text is the layout of its state
    serving = 'R',       // clients are answered
    ending = 'E',        // the mount is over: end with me
    handing_over = 'H',  // I end, and a successor takes over
    renew = 'U',         // replace the standby by one of the installed version
    // To a child.
    descriptor = 'F',  // with a descriptor that is held, and its name
    go = 'G',          // a Go: take over
    renewed = 'V',     // the new standby is warm; the text is the layout, "" if it did not start
};

constexpr std::size_t kTextBytes = 32;

struct Message {
    Kind kind{};
    std::array<std::uint8_t, 7> reserved{};
    std::array<char, kTextBytes> text{};
};
static_assert(sizeof(Message) == 40);

// One change of the serving process.
struct Handover {
    std::int64_t at_ns = 0;      // CLOCK_REALTIME
    std::uint64_t pause_ns = 0;  // from the end of the old process to the answers of the new
    std::int32_t signal = 0;     // that ended it; 0: it exited
    std::int32_t status = 0;     // that it exited with
    std::uint32_t planned = 0;
    std::uint32_t reserved = 0;
};

constexpr std::size_t kHandoversKept = 16;

struct Go {
    Kind kind = Kind::go;
    std::array<std::uint8_t, 3> reserved{};
    std::uint32_t generation = 0;  // 1: nothing is mounted yet
    std::uint32_t deaths = 0;
    std::uint32_t kept = 0;        // of `last`; the newest comes last
    std::uint64_t since_ns = 0;    // CLOCK_MONOTONIC, the start of this pause
    std::uint64_t longest_ns = 0;  // pause so far
    std::uint64_t holder = 0;      // its process id
    std::array<Handover, kHandoversKept> last{};
};
static_assert(sizeof(Go) == 40 + 32 * kHandoversKept);

}  // namespace zc::holder
