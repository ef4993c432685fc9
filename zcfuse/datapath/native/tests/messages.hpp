// Requests in the kernel's format and replies in control's, as bytes.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "abi/fuse.hpp"

namespace zc::test {

using Bytes = std::vector<std::uint8_t>;

template <class Structure>
void append(Bytes& to, const Structure& structure) {
    const auto* data = reinterpret_cast<const std::uint8_t*>(&structure);
    to.insert(to.end(), data, data + sizeof structure);
}

inline void append(Bytes& to, std::string_view text) {
    to.insert(to.end(), text.begin(), text.end());
}

template <class... Parts>
Bytes joined(const Parts&... parts) {
    Bytes bytes;
    (append(bytes, parts), ...);
    return bytes;
}

// Bytes beyond the message read as zeros.
template <class Structure>
Structure structure_at(const Bytes& bytes, std::size_t offset) {
    Structure structure{};
    if (offset + sizeof structure <= bytes.size()) {
        std::memcpy(&structure, bytes.data() + offset, sizeof structure);
    }
    return structure;
}

template <class... Parts>
Bytes request(abi::Opcode opcode, std::uint64_t unique, std::uint64_t nodeid,
              const Parts&... parts) {
    const Bytes body = joined(parts...);
    abi::InHeader header{};
    header.len = static_cast<std::uint32_t>(sizeof header + body.size());
    header.opcode = static_cast<std::uint32_t>(opcode);
    header.unique = unique;
    header.nodeid = nodeid;
    Bytes bytes = joined(header);
    bytes.insert(bytes.end(), body.begin(), body.end());
    return bytes;
}

template <class... Parts>
Bytes reply(std::uint64_t unique, int error, const Parts&... parts) {
    const Bytes body = joined(parts...);
    abi::OutHeader header{};
    header.len = static_cast<std::uint32_t>(sizeof header + body.size());
    header.error = error;
    header.unique = unique;
    Bytes bytes = joined(header);
    bytes.insert(bytes.end(), body.begin(), body.end());
    return bytes;
}

inline Bytes read_request(std::uint64_t unique, std::uint64_t nodeid, std::uint64_t offset,
                          std::uint32_t size) {
    abi::ReadIn body{};
    body.offset = offset;
    body.size = size;
    return request(abi::Opcode::read, unique, nodeid, body);
}

inline Bytes init_request(std::uint64_t unique) {
    abi::InitIn body{};
    body.major = 7;
    body.minor = 45;
    body.max_readahead = 128 << 10;
    body.flags = ~std::uint32_t{0} & ~(std::uint32_t{1} << 31);
    body.flags2 = ~std::uint32_t{0};
    return request(abi::Opcode::init, unique, 0, body);
}

inline Bytes interrupt_request(std::uint64_t interrupted) {
    return request(abi::Opcode::interrupt, interrupted | abi::kInterruptBit, 0,
                   abi::InterruptIn{interrupted});
}

inline abi::OutHeader header_of(const Bytes& message) {
    return structure_at<abi::OutHeader>(message, 0);
}
inline Bytes body_of(const Bytes& message) {
    constexpr auto kHeader = static_cast<std::ptrdiff_t>(sizeof(abi::OutHeader));
    return message.size() < sizeof(abi::OutHeader)
               ? Bytes{}
               : Bytes(message.begin() + kHeader, message.end());
}

}  // namespace zc::test
