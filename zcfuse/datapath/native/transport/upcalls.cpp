#include "transport/upcalls.hpp"

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace zc {

namespace {

// Numbers of requests that we make up ourselves; the kernel counts up from 2 and does not get here.
constexpr std::uint64_t kOwnUnique = 1ULL << 62;

abi::InHeader header_of(std::span<const std::byte> request) noexcept {
    abi::InHeader header{};
    std::memcpy(&header, request.data(), sizeof header);
    return header;
}

bool wants_reply(const abi::InHeader& header) noexcept {
    const auto opcode = static_cast<abi::Opcode>(header.opcode);
    return opcode != abi::Opcode::forget && opcode != abi::Opcode::batch_forget &&
           opcode != abi::Opcode::interrupt && opcode != abi::Opcode::notify_reply &&
           (header.unique & kOwnUnique) == 0;
}

}  // namespace

Upcalls::Upcalls(sys::UniqueFd socket)
    : socket_(std::move(socket)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (!wake_) {
        throw std::system_error(errno, std::generic_category(), "eventfd");
    }
}

void Upcalls::hand_up(const Channel& channel, std::span<const std::byte> request) {
    const auto header = header_of(request);
    const Upcall upcall{&channel, header.opcode, header.nodeid, std::chrono::steady_clock::now()};
    const bool replied = wants_reply(header);
    bool wake_relay = false;
    ssize_t sent = -EPIPE;
    {
        const std::lock_guard guard(lock_);
        if (!closed_) {
            if (replied) {
                out_[header.unique] = upcall;
            }
            sent = overflow_.empty() ? send_locked(request) : -EAGAIN;
            if (sent == -EAGAIN) {
                overflow_.emplace_back(request.begin(), request.end());
                overflow_peak_ = std::max(overflow_peak_, overflow_.size());
                wake_relay = true;
            } else if (sent < 0) {
                out_.erase(header.unique);
            }
        }
    }
    if (wake_relay) {
        wake();
    } else if (sent < 0 && replied) {
        give_up(header.unique, upcall, -EIO);
    }
}

ssize_t Upcalls::send_locked(std::span<const std::byte> request) {
    const std::array<iovec, 1> piece{{{const_cast<std::byte*>(request.data()), request.size()}}};
    return sys::send(socket_.get(), piece, MSG_DONTWAIT);
}

void Upcalls::give_up(std::uint64_t unique, const Upcall& upcall, int error) {
    {
        const std::lock_guard guard(lock_);
        ++given_up_count_;
    }
    upcall.channel->reply_error(unique, error);
}

std::optional<Upcall> Upcalls::take(std::uint64_t unique) {
    const std::lock_guard guard(lock_);
    const auto node = out_.extract(unique);
    return node.empty() ? std::nullopt : std::optional(node.mapped());
}

const Channel* Upcalls::channel_of(std::uint64_t unique) const {
    const std::lock_guard guard(lock_);
    const auto found = out_.find(unique);
    return found == out_.end() ? nullptr : found->second.channel;
}

bool Upcalls::has_overflow() const {
    const std::lock_guard guard(lock_);
    return !overflow_.empty();
}

void Upcalls::wake() const noexcept {
    const std::uint64_t one = 1;
    const auto written = ::write(wake_.get(), &one, sizeof one);
    static_cast<void>(written);  // it only fails when it is already awake
}

void Upcalls::send_overflow() {
    std::vector<std::pair<std::uint64_t, Upcall>> lost;
    {
        const std::lock_guard guard(lock_);
        while (!overflow_.empty()) {
            const auto sent = send_locked(overflow_.front());
            if (sent == -EAGAIN) {
                break;
            }
            if (sent < 0) {
                const auto unique = header_of(overflow_.front()).unique;
                if (auto node = out_.extract(unique); !node.empty()) {
                    lost.emplace_back(unique, node.mapped());
                }
            }
            overflow_.pop_front();
        }
    }
    for (const auto& [unique, upcall] : lost) {
        give_up(unique, upcall, -EIO);
    }
}

void Upcalls::expire(std::chrono::seconds age) {
    const auto limit = std::chrono::steady_clock::now() - age;
    std::vector<std::pair<std::uint64_t, Upcall>> old;
    {
        const std::lock_guard guard(lock_);
        for (auto at = out_.begin(); at != out_.end();) {
            if (at->second.since > limit) {
                ++at;
                continue;
            }
            old.emplace_back(*at);
            given_up_.insert(*at);
            at = out_.erase(at);
        }
    }
    for (const auto& [unique, upcall] : old) {
        give_up(unique, upcall, -EIO);
    }
}

void Upcalls::undo(std::span<const std::byte> late_reply) {
    abi::OutHeader header{};
    std::memcpy(&header, late_reply.data(), sizeof header);
    Upcall upcall{};
    {
        const std::lock_guard guard(lock_);
        ++late_;
        const auto node = given_up_.extract(header.unique);
        if (node.empty()) {
            return;
        }
        upcall = node.mapped();
    }
    const auto body = late_reply.subspan(sizeof header);
    const auto opcode = static_cast<abi::Opcode>(upcall.opcode);
    if (header.error == 0 && opcode == abi::Opcode::lookup &&
        body.size() >= sizeof(abi::EntryOut)) {
        abi::EntryOut entry{};
        std::memcpy(&entry, body.data(), sizeof entry);
        const std::uint64_t lookups = 1;
        if (entry.nodeid != 0) {
            hand_up_own(abi::Opcode::forget, entry.nodeid, std::as_bytes(std::span(&lookups, 1)));
        }
    } else if (header.error == 0 && body.size() >= sizeof(abi::OpenOut) &&
               (opcode == abi::Opcode::open || opcode == abi::Opcode::opendir)) {
        abi::OpenOut open{};
        std::memcpy(&open, body.data(), sizeof open);
        const abi::ReleaseIn release{open.fh, 0, 0, 0};
        hand_up_own(opcode == abi::Opcode::open ? abi::Opcode::release : abi::Opcode::releasedir,
                    upcall.nodeid, std::as_bytes(std::span(&release, 1)));
    }
}

void Upcalls::hand_up_own(abi::Opcode opcode, std::uint64_t nodeid,
                          std::span<const std::byte> body) {
    abi::InHeader header{};
    header.len = static_cast<std::uint32_t>(sizeof header + body.size());
    header.opcode = static_cast<std::uint32_t>(opcode);
    header.nodeid = nodeid;
    std::vector<std::byte> request(header.len);
    {
        const std::lock_guard guard(lock_);
        if (closed_) {
            return;
        }
        header.unique = kOwnUnique | ++own_unique_;
        std::memcpy(request.data(), &header, sizeof header);
        std::memcpy(request.data() + sizeof header, body.data(), body.size());
        overflow_.push_back(std::move(request));
    }
    wake();
}

void Upcalls::close() {
    std::unordered_map<std::uint64_t, Upcall> out;
    {
        const std::lock_guard guard(lock_);
        closed_ = true;
        out.swap(out_);
        overflow_.clear();
    }
    for (const auto& [unique, upcall] : out) {
        give_up(unique, upcall, -EIO);
    }
}

Upcalls::Statistics Upcalls::statistics() const {
    const std::lock_guard guard(lock_);
    return {out_.size(), overflow_peak_, given_up_count_, late_};
}

}  // namespace zc
