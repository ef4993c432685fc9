#include "transport/notifier.hpp"

#include <array>
#include <cstring>
#include <utility>

#include "abi/fuse_nodes.hpp"

namespace zc {

namespace {

int notify(const Channel& channel, std::uint32_t code, std::span<const iovec> body) {
    abi::OutHeader header{sizeof(abi::OutHeader), static_cast<std::int32_t>(code), 0};
    std::array<iovec, 4> pieces{{{&header, sizeof header}}};
    std::size_t count = 1;
    for (const auto& piece : body) {
        header.len += static_cast<std::uint32_t>(piece.iov_len);
        pieces[count++] = piece;
    }
    const auto sent = channel.reply({pieces.data(), count});
    return sent < 0 ? static_cast<int>(sent) : 0;
}

}  // namespace

void Notifier::post(std::span<const std::byte> message) {
    {
        const std::lock_guard guard(lock_);
        queue_.emplace_back(message.begin(), message.end());
    }
    wake_.notify_one();
}

void Notifier::post(std::uint32_t code, std::span<const std::byte> body, std::string_view name) {
    const auto tail = name.empty() ? 0 : name.size() + 1;  // with its NUL
    std::vector<std::byte> message(sizeof(abi::OutHeader) + body.size() + tail);
    const abi::OutHeader header{static_cast<std::uint32_t>(message.size()),
                                static_cast<std::int32_t>(code), 0};
    std::memcpy(message.data(), &header, sizeof header);
    if (!body.empty()) {
        std::memcpy(message.data() + sizeof header, body.data(), body.size());
    }
    if (!name.empty()) {
        std::memcpy(message.data() + sizeof header + body.size(), name.data(), name.size());
    }
    post(message);
}

void Notifier::post_invalidate_inode(std::uint64_t nodeid) {
    const abi::NotifyInvalInode body{nodeid, 0, 0};
    post(abi::kNotifyInvalInode, std::as_bytes(std::span(&body, 1)));
}

void Notifier::post_invalidate_entry(std::uint64_t parent, std::string_view name) {
    const abi::NotifyInvalEntry body{parent, static_cast<std::uint32_t>(name.size()), 0};
    post(abi::kNotifyInvalEntry, std::as_bytes(std::span(&body, 1)), name);
}

void Notifier::post_new_epoch() {
    post(abi::kNotifyIncEpoch, {});
}

void Notifier::run(const Channel& channel) {
    std::unique_lock guard(lock_);
    while (!stopping_) {
        if (queue_.empty()) {
            wake_.wait(guard);
            continue;
        }
        auto message = std::move(queue_.front());
        queue_.pop_front();
        ++sent_;
        guard.unlock();
        // ENOENT only means that the kernel no longer knows the inode or entry.
        const std::array<iovec, 1> piece{{{message.data(), message.size()}}};
        channel.reply(piece);
        guard.lock();
    }
}

void Notifier::stop() {
    {
        const std::lock_guard guard(lock_);
        stopping_ = true;
    }
    wake_.notify_all();
}

std::uint64_t Notifier::sent() const {
    const std::lock_guard guard(lock_);
    return sent_;
}

int Notifier::invalidate_inode(const Channel& channel, std::uint64_t nodeid, std::int64_t offset,
                               std::int64_t length) {
    abi::NotifyInvalInode body{nodeid, offset, length};
    const std::array<iovec, 1> pieces{{{&body, sizeof body}}};
    return notify(channel, abi::kNotifyInvalInode, pieces);
}

int Notifier::invalidate_entry(const Channel& channel, std::uint64_t parent,
                               std::span<const std::byte> name) {
    abi::NotifyInvalEntry body{parent, static_cast<std::uint32_t>(name.size()), 0};
    char nul = '\0';
    const std::array<iovec, 3> pieces{
        {{&body, sizeof body}, {const_cast<std::byte*>(name.data()), name.size()}, {&nul, 1}}};
    return notify(channel, abi::kNotifyInvalEntry, pieces);
}

int Notifier::resend(const Channel& channel) {
    return notify(channel, abi::kNotifyResend, {});
}

int Notifier::new_epoch(const Channel& channel) {
    return notify(channel, abi::kNotifyIncEpoch, {});
}

}  // namespace zc
