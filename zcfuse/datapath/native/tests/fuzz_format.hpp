// The format of the fuzzer's bytes: steps, each with a byte for the sender, two bytes of length
// (low byte first) and the message. A length beyond the end means the rest.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <span>

#include "messages.hpp"

namespace zc::test {

enum class Step : std::uint8_t {
    from_kernel,
    from_control,
    expire,  // all upcalls in flight pass their deadline
    count_,
};

inline constexpr std::uint64_t kWholeNode = 2;     // leased, one file
inline constexpr std::uint64_t kPiecesNode = 3;    // leased, three extents
inline constexpr std::uint64_t kUnionNode = 4;     // leased, three layers and an index merged
inline constexpr std::uint64_t kArchiveNode = 5;   // leased, an index
inline constexpr std::uint64_t kStrangerNode = 9;  // not leased
// Stand for a file and a directory below the leased root, whose nodeids are not known in advance.
inline constexpr std::uint64_t kLeasedFile = 10;
inline constexpr std::uint64_t kLeasedDirectory = 11;
// The same below the union: a file of one layer, a directory of all.
inline constexpr std::uint64_t kUnionFile = 12;
inline constexpr std::uint64_t kUnionDirectory = 13;
// Members of the index, by their names: a file, a sparse one, a packed one, a symlink, a directory,
// one with a damaged record, and a missing one.
inline constexpr std::uint64_t kFirstMember = 14;
inline constexpr std::uint64_t kMembers = 7;
inline constexpr const char* kMemberNames[kMembers] = {"file", "holes", "packed", "soft",
                                                       "sub",  "torn",  "void"};

inline void append_step(Bytes& to, Step step, const Bytes& message) {
    to.push_back(static_cast<std::uint8_t>(step));
    to.push_back(static_cast<std::uint8_t>(message.size() & 0xFF));
    to.push_back(static_cast<std::uint8_t>(message.size() >> 8));
    to.insert(to.end(), message.begin(), message.end());
}

struct ParsedStep {
    Step step;
    Bytes message;
};

// Takes the next step off the front.
inline ParsedStep take_step(std::span<const std::uint8_t>& bytes) {
    constexpr std::size_t kPrefix = 3;
    const auto count = static_cast<std::uint8_t>(Step::count_);
    const auto step = static_cast<Step>(bytes[0] % count);
    if (bytes.size() < kPrefix) {
        bytes = {};
        return {step, {}};
    }
    const std::size_t wanted = bytes[1] + (std::size_t{bytes[2]} << 8);
    const std::size_t size = std::min(wanted, bytes.size() - kPrefix);
    const auto message = bytes.subspan(kPrefix, size);
    bytes = bytes.subspan(kPrefix + size);
    return {step, Bytes(message.begin(), message.end())};
}

}  // namespace zc::test
