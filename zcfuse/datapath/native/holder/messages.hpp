// The messages between the holder and its children or programs, over one SEQPACKET socket for each.
// All are of fixed size, and only processes of zcfuse write them: nothing of a client gets here.
// zcfuse/control/survive/_link.py is the other side. It has the formats below from the bindings, in
// the words of Python's struct module.
#pragma once

#include <array>
#include <cstdint>

namespace zc::holder {

enum class Kind : std::uint8_t {
    // From a child.
    keep = 'K',          // with a descriptor: hold it under the name
    warm = 'S',          // ready to take over; the text is the layout of its state
    keep_if_room = 'O',  // the same; the mount does without where there is no room
    drop = 'X',          // hold nothing under the name any more
    serving = 'R',       // clients are answered
    ending = 'E',        // the mount is over: end with me
    handing_over = 'H',  // I end, and a successor takes over
    renew = 'U',         // replace the standby by one of the installed version
    // From a program (program_holder.hpp).
    listen = 'A',  // with a listening socket: take the next program from there
    place = 'D',   // with the directory of that socket, and its name
    query = 'Q',   // how is it?
    // To a child or a program.
    descriptor = 'F',  // with a descriptor that is held, and its name
    go = 'G',          // a Go: take over
    renewed = 'V',     // the new standby is warm; the text is the layout, "" if it did not start
    // To a program.
    refused = 'N',  // nothing is taken over; the text says why
    state = 'W',    // the text is a StateNow
};

constexpr std::size_t kTextBytes = 32;

struct Message {
    Kind kind{};
    std::array<std::uint8_t, 7> reserved{};
    std::array<char, kTextBytes> text{};
};
static_assert(sizeof(Message) == 40);
inline constexpr const char* kMessageFormat = "<c7x32s";

// The answer to a query: what a command needs to tell its user. Times are of CLOCK_MONOTONIC.
struct StateNow {
    std::uint32_t generation = 0;
    std::uint32_t serves = 0;    // whether a program does, or is about to
    std::uint64_t since_ns = 0;  // the start of this pause; 0: clients are answered
    std::uint64_t until_ns = 0;  // when the holder ends; 0: it does not
    std::uint64_t holder = 0;    // its process id
};
static_assert(sizeof(StateNow) == kTextBytes);
inline constexpr const char* kStateFormat = "<IIQQQ";

// The exit status of a process whose parent alone learns it.
constexpr int kUnknownStatus = -1;

// One change of the serving process.
struct Handover {
    std::int64_t at_ns = 0;      // CLOCK_REALTIME
    std::uint64_t pause_ns = 0;  // from the end of the old process to the answers of the new
    std::int32_t signal = 0;     // that ended it; 0: it exited
    std::int32_t status = 0;     // that it exited with
    std::uint32_t planned = 0;
    std::uint32_t reserved = 0;
};
static_assert(sizeof(Handover) == 32);
inline constexpr const char* kHandoverFormat = "<qQiiI4x";

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
// Without the handovers, which follow.
inline constexpr const char* kGoFormat = "<c3xIIIQQQ";

}  // namespace zc::holder
