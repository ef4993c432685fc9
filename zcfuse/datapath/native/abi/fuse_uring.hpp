// FUSE over io_uring: the command area of an SQE and an entry's header buffer. Declared here
// because the headers of supported distributions lack it. Layouts and numbers: Linux 6.14,
// include/uapi/linux/fuse.h, protocol 7.42.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace zc::abi::uring {

// Of an SQE's `cmd_op`: offers an entry's buffers and waits for a request; answers the request of
// an entry and waits for the next.
inline constexpr std::uint32_t kRegister = 1;
inline constexpr std::uint32_t kCommitAndFetch = 2;

struct EntryInOut {
    std::uint64_t flags;
    std::uint64_t commit_id;     // names the request in kCommitAndFetch
    std::uint32_t payload_size;  // used bytes of the payload buffer
    std::uint32_t padding;
    std::uint64_t reserved;
};
static_assert(sizeof(EntryInOut) == 32);

// An entry's header buffer. A request has three parts: its InHeader in `in_out`, the first
// structure of its operation in `operation`, and the rest in the payload buffer. A reply has its
// OutHeader in `in_out` and the rest in the payload buffer.
struct EntryHeader {
    std::array<std::byte, 128> in_out;
    std::array<std::byte, 128> operation;
    EntryInOut entry;
};
static_assert(sizeof(EntryHeader) == 288);

// The first bytes of an SQE's command area of 80 (IORING_SETUP_SQE128).
struct Command {
    std::uint64_t flags;
    std::uint64_t commit_id;
    std::uint16_t queue;
    std::uint8_t padding[6];
};
static_assert(sizeof(Command) == 24);

}  // namespace zc::abi::uring
