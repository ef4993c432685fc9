#include "transport/ring_entries.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <string>
#include <system_error>

namespace zc {

namespace {

std::size_t whole_pages(std::size_t bytes) noexcept {
    const auto page = sys::page_bytes();
    return (bytes + page - 1) / page * page;
}

std::size_t total(std::span<const iovec> pieces) noexcept {
    std::size_t bytes = 0;
    for (const auto& piece : pieces) {
        bytes += piece.iov_len;
    }
    return bytes;
}

bool wants_reply(std::uint32_t opcode) noexcept {
    const auto known = static_cast<abi::Opcode>(opcode);
    return known != abi::Opcode::forget && known != abi::Opcode::batch_forget &&
           known != abi::Opcode::interrupt && known != abi::Opcode::notify_reply;
}

bool waited_for(std::uint32_t opcode) noexcept {
    const auto known = static_cast<abi::Opcode>(opcode);
    return known != abi::Opcode::release && known != abi::Opcode::releasedir;
}

// All bytes of `pieces` except the first `skip`. Bytes built in place stay.
void gather(std::span<const iovec> pieces, std::size_t skip, std::byte* into) noexcept {
    for (const auto& piece : pieces) {
        const auto skipped = std::min(skip, piece.iov_len);
        skip -= skipped;
        const auto* from = static_cast<const std::byte*>(piece.iov_base) + skipped;
        const auto bytes = piece.iov_len - skipped;
        if (bytes > 0 && from != into) {
            std::memmove(into, from, bytes);
        }
        into += bytes;
    }
}

}  // namespace

RingEntries::RingEntries(std::size_t depth, std::size_t payload_bytes, std::size_t prefault_bytes)
    : depth_(depth),
      payload_bytes_(whole_pages(payload_bytes)),
      prefaulted_bytes_(std::min(whole_pages(prefault_bytes), payload_bytes_)),
      slots_(new Slot[depth]) {
    if (depth == 0 || depth > kMostEntries) {
        throw std::invalid_argument("a ring queue has from 1 to 64 entries");
    }
    const auto header_bytes = whole_pages(sizeof(abi::uring::EntryHeader));
    mapped_bytes_ = depth * (header_bytes + payload_bytes_);
    int error = 0;
    mapped_ = static_cast<std::byte*>(sys::mmap(mapped_bytes_, PROT_READ | PROT_WRITE,
                                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                                                /*fd=*/-1, /*offset=*/0, error));
    if (mapped_ == nullptr) {
        throw std::system_error(
            -error, std::generic_category(),
            "cannot map the buffers of a ring queue, " + std::to_string(mapped_bytes_) + " bytes");
    }
    // Otherwise a fork would make its pages copy-on-write.
    sys::madvise(mapped_, mapped_bytes_, MADV_DONTFORK);
    for (std::size_t i = 0; i < depth; ++i) {
        std::byte* const payload = mapped_ + depth * header_bytes + i * payload_bytes_;
        slots_[i].buffers[0] = {mapped_ + i * header_bytes, sizeof(abi::uring::EntryHeader)};
        slots_[i].buffers[1] = {payload, payload_bytes_};
        if (prefaulted_bytes_ > 0) {
            std::memset(slots_[i].buffers[0].iov_base, 0, sizeof(abi::uring::EntryHeader));
            std::memset(payload, 0, prefaulted_bytes_);
        }
    }
}

RingEntries::~RingEntries() {
    if (mapped_ != nullptr) {
        sys::munmap(mapped_, mapped_bytes_);
    }
}

std::size_t RingEntries::lock(const Lock& lock) {
    const auto headers = depth_ * whole_pages(sizeof(abi::uring::EntryHeader));
    if (prefaulted_bytes_ == 0 || !lock({mapped_, headers})) {
        return 0;
    }
    std::size_t bytes = headers;
    for (std::size_t i = 0; i < depth_; ++i) {
        auto* const payload = static_cast<std::byte*>(slots_[i].buffers[1].iov_base);
        if (!lock({payload, prefaulted_bytes_})) {
            return bytes;
        }
        bytes += prefaulted_bytes_;
    }
    locked_payload_ = prefaulted_bytes_;
    return bytes;
}

std::span<const iovec> RingEntries::buffers(std::size_t index) const noexcept {
    return slots_[index].buffers;
}

abi::uring::EntryHeader& RingEntries::header(std::size_t index) const noexcept {
    return *static_cast<abi::uring::EntryHeader*>(slots_[index].buffers[0].iov_base);
}

ssize_t RingEntries::fetch(std::size_t index, std::span<std::byte> message) noexcept {
    Slot& slot = slots_[index];
    auto& laid = header(index);
    abi::InHeader in{};
    std::memcpy(&in, laid.in_out.data(), sizeof in);
    if (laid.entry.commit_id == 0 || in.unique == 0) {
        return -EPROTO;
    }
    slot.commit_id = laid.entry.commit_id;
    slot.awaited = waited_for(in.opcode);
    busy_.fetch_add(1, std::memory_order_relaxed);
    const std::size_t payload = laid.entry.payload_size;
    const std::size_t parts = sizeof in + payload;
    const bool adds_up = payload <= payload_bytes_ && in.len >= parts &&
                         in.len - parts <= laid.operation.size() && in.len <= message.size();
    if (adds_up) {
        const auto operation = in.len - parts;
        std::memcpy(message.data(), &in, sizeof in);
        std::memcpy(message.data() + sizeof in, laid.operation.data(), operation);
        std::memcpy(message.data() + sizeof in + operation, slot.buffers[1].iov_base, payload);
    }
    if (adds_up && wants_reply(in.opcode)) {
        slot.unique.store(in.unique, std::memory_order_release);
        return static_cast<ssize_t>(in.len);
    }
    const abi::OutHeader out{sizeof out, adds_up ? 0 : -EIO, in.unique};
    std::memcpy(laid.in_out.data(), &out, sizeof out);
    laid.entry.payload_size = 0;
    mark_done(index);
    return adds_up ? static_cast<ssize_t>(in.len) : -EMSGSIZE;
}

std::uint64_t RingEntries::take_done() noexcept {
    const auto done = done_.exchange(0, std::memory_order_acquire);
    busy_.fetch_sub(static_cast<std::size_t>(std::popcount(done)), std::memory_order_relaxed);
    return done;
}

bool RingEntries::mark_done(std::size_t index) noexcept {
    return done_.fetch_or(std::uint64_t{1} << index, std::memory_order_release) == 0;
}

RingEntries::Slot* RingEntries::find(std::uint64_t unique) const noexcept {
    for (std::size_t i = 0; unique != 0 && i < depth_; ++i) {
        if (slots_[i].unique.load(std::memory_order_acquire) == unique) {
            return &slots_[i];
        }
    }
    return nullptr;
}

std::span<std::byte> RingEntries::payload(std::uint64_t unique) const noexcept {
    const Slot* const slot = find(unique);
    return slot == nullptr
               ? std::span<std::byte>{}
               : std::span(static_cast<std::byte*>(slot->buffers[1].iov_base), payload_bytes_);
}

ssize_t RingEntries::reply(std::span<const iovec> pieces, bool& first) noexcept {
    abi::OutHeader out{};
    if (pieces.empty() || pieces.front().iov_len < sizeof out) {
        return -EINVAL;
    }
    std::memcpy(&out, pieces.front().iov_base, sizeof out);
    const auto size = total(pieces);
    Slot* const slot = find(out.unique);
    if (slot == nullptr) {
        return -ENOENT;
    }
    if (size - sizeof out > payload_bytes_) {
        return -EMSGSIZE;
    }
    auto expected = out.unique;
    if (!slot->unique.compare_exchange_strong(expected, 0, std::memory_order_acq_rel)) {
        return -ENOENT;
    }
    const auto index = static_cast<std::size_t>(slot - slots_.get());
    auto& laid = header(index);
    gather(pieces, sizeof out, static_cast<std::byte*>(slot->buffers[1].iov_base));
    std::memcpy(laid.in_out.data(), &out, sizeof out);
    laid.entry.payload_size = static_cast<std::uint32_t>(size - sizeof out);
    first = mark_done(index);
    return static_cast<ssize_t>(size);
}

}  // namespace zc
