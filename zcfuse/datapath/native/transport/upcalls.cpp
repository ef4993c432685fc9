#include "transport/upcalls.hpp"

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <string_view>
#include <system_error>
#include <utility>

namespace zc {

namespace {

// Numbers of our own requests; the kernel counts up from 2 and never reaches these.
constexpr std::uint64_t kOwnUnique = 1ULL << 62;

constexpr auto kLong = std::chrono::seconds(1);

bool holds_for_long(const Upcall& upcall, std::chrono::steady_clock::time_point now) noexcept {
    return upcall.counted && now - upcall.since > kLong;
}

template <typename Structure>
Structure read_as(std::span<const std::byte> bytes) noexcept {
    Structure structure;
    std::memcpy(&structure, bytes.data(), sizeof structure);
    return structure;
}

template <typename Action>
void for_each_entry(std::span<const std::byte> body, Action action) {
    constexpr std::size_t kFixed = sizeof(abi::EntryOut) + sizeof(abi::Dirent);
    while (body.size() >= kFixed) {
        const auto dirent = read_as<abi::Dirent>(body.subspan(sizeof(abi::EntryOut)));
        const auto size = (kFixed + std::size_t{dirent.namelen} + 7) & ~std::size_t{7};
        if (size > body.size()) {
            return;
        }
        action(read_as<abi::EntryOut>(body),
               {reinterpret_cast<const char*>(body.data()) + kFixed, dirent.namelen});
        body = body.subspan(size);
    }
}

abi::InHeader header_of(std::span<const std::byte> request) noexcept {
    return read_as<abi::InHeader>(request);
}

bool wants_reply(const abi::InHeader& header) noexcept {
    const auto opcode = static_cast<abi::Opcode>(header.opcode);
    return opcode != abi::Opcode::forget && opcode != abi::Opcode::batch_forget &&
           opcode != abi::Opcode::interrupt && opcode != abi::Opcode::notify_reply &&
           (header.unique & kOwnUnique) == 0;
}

// Gives something back, so that nothing may delay it.
bool gives_back(const abi::InHeader& header) noexcept {
    const auto opcode = static_cast<abi::Opcode>(header.opcode);
    return opcode == abi::Opcode::release || opcode == abi::Opcode::releasedir ||
           opcode == abi::Opcode::flush || opcode == abi::Opcode::init ||
           opcode == abi::Opcode::destroy;
}

// The socket is full, or there is no memory for the message.
bool may_go_later(ssize_t error) noexcept {
    return error == -EAGAIN || error == -ENOBUFS || error == -ENOMEM;
}

}  // namespace

Upcalls::Upcalls(sys::UniqueFd socket, std::size_t tasks, std::size_t ring_depth)
    : socket_(std::move(socket)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      ring_depth_(ring_depth),
      shares_(tasks) {
    if (!wake_) {
        throw std::system_error(errno, std::generic_category(), "eventfd");
    }
}

bool Upcalls::forward(const std::shared_ptr<const Channel>& channel,
                      std::span<const std::byte> request,
                      std::chrono::steady_clock::time_point since, std::uint32_t asked_as) {
    const auto header = header_of(request);
    const bool replied = wants_reply(header);
    Upcall upcall{channel,
                  asked_as != 0 ? asked_as : header.opcode,
                  header.nodeid,
                  since,
                  header.pid,
                  header.uid,
                  std::string(abi::entry_name(header, request.subspan(sizeof header)))};
    upcall.counted = replied && header.uid != 0 && !gives_back(header);
    bool wake_relay = false;
    ssize_t sent = -EPIPE;
    {
        const std::lock_guard guard(lock_);
        if (!closed_ && holds_too_much(upcall)) {
            ++refused_;
            sent = -EBUSY;
        } else if (!closed_) {
            upcall.waits = upcall.counted && !shares_.begin(header.uid);
            if (replied) {
                out_[header.unique] = upcall;
            }
            if (upcall.waits) {
                shares_.wait(header.uid, {header.unique, {request.begin(), request.end()}});
                ++waited_;
                return true;
            }
            sent = overflow_.empty() ? send_locked(request) : -EAGAIN;
            if (may_go_later(sent)) {
                overflow_.emplace_back(request.begin(), request.end());
                overflow_peak_ = std::max(overflow_peak_, overflow_.size());
                wake_relay = true;
            } else if (sent < 0) {
                out_.erase(header.unique);
                end_locked(upcall);
                wake_relay = !overflow_.empty();
            }
        }
    }
    if (wake_relay) {
        wake();
    }
    if (sent == -EBUSY) {
        channel->reply_error(header.unique, -EAGAIN);
        return false;
    }
    if (sent < 0 && !may_go_later(sent) && replied) {
        give_up(header.unique, upcall, -EIO);
        return false;
    }
    return replied;
}

// How many requests may hold for long what this one holds too; nothing if it holds nothing that
// others need.
std::optional<Upcalls::Most> Upcalls::most_beside(const Upcall& upcall) const noexcept {
    if (ring_depth_ == 0 || !upcall.counted) {
        return std::nullopt;
    }
    if (upcall.channel->is_ring()) {
        return Most{upcall.channel.get(), std::max<std::size_t>(ring_depth_ / 2, 1),
                    std::max<std::size_t>(ring_depth_ - 1, 1)};
    }
    if (static_cast<abi::Opcode>(upcall.opcode) == abi::Opcode::read) {
        return Most{nullptr, kMostReadsOfUser, kSharedBackground - kSharedBackground / 8};
    }
    return std::nullopt;
}

// Whether requests of users hold so much for long that one more is too many.
bool Upcalls::holds_too_much(const Upcall& upcall) const {
    const auto most = most_beside(upcall);
    if (!most || out_.size() < most->of_user) {
        return false;
    }
    std::size_t own = 0;
    std::size_t all = 0;
    for (const auto& [unique, other] : out_) {
        const auto held = most_beside(other);
        if (held && held->place == most->place && holds_for_long(other, upcall.since)) {
            ++all;
            own += other.uid == upcall.uid ? 1 : 0;
        }
    }
    return own >= most->of_user || all >= most->of_users;
}

void Upcalls::relieve(const GivenUp& given_up) {
    const auto now = std::chrono::steady_clock::now();
    std::vector<std::pair<std::uint64_t, Upcall>> refused;
    {
        const std::lock_guard guard(lock_);
        std::map<std::pair<const Channel*, std::uint32_t>, std::size_t> own;
        std::map<const Channel*, std::size_t> all;
        for (auto at = out_.begin(); at != out_.end();) {
            const auto& upcall = at->second;
            const auto most = most_beside(upcall);
            if (!most || !holds_for_long(upcall, now) ||
                (++own[{most->place, upcall.uid}] <= most->of_user &&
                 ++all[most->place] <= most->of_users)) {
                ++at;
                continue;
            }
            refused.emplace_back(*at);
            at = take_off(at);
            ++refused_;
        }
    }
    for (const auto& [unique, upcall] : refused) {
        upcall.channel->reply_error(unique, -EAGAIN);
        given_up(upcall);
    }
}

// Takes a request off the list whose client is answered in control's place.
Upcalls::Out::iterator Upcalls::take_off(Out::iterator at) {
    if (at->second.waits) {
        shares_.drop(at->second.uid, at->first);
    } else {
        given_up_.insert(*at);  // control still works on it
    }
    return out_.erase(at);
}

// A request is off the list: its user's share is free for one that waits.
void Upcalls::end_locked(const Upcall& upcall) {
    if (!upcall.counted || upcall.waits || closed_) {
        return;
    }
    shares_.end(upcall.uid);
    while (auto next = shares_.next()) {
        const auto found = out_.find(next->unique);
        found->second.waits = false;
        overflow_.push_back(std::move(next->request));
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
    if (node.empty()) {
        return std::nullopt;
    }
    end_locked(node.mapped());
    return node.mapped();
}

std::optional<Upcall> Upcalls::withdraw(std::uint64_t unique) {
    std::optional<Upcall> withdrawn;
    {
        const std::lock_guard guard(lock_);
        const auto found = out_.find(unique);
        if (found == out_.end() || !found->second.waits) {
            return std::nullopt;
        }
        withdrawn = found->second;
        shares_.drop(withdrawn->uid, unique);
        out_.erase(found);
    }
    withdrawn->channel->reply_error(unique, -EINTR);
    return withdrawn;
}

std::shared_ptr<const Channel> Upcalls::channel_of(std::uint64_t unique) const {
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
    static_cast<void>(written);  // it fails only if it is already awake
}

bool Upcalls::send_overflow(const GivenUp& given_up) {
    std::vector<std::pair<std::uint64_t, Upcall>> lost;
    ssize_t sent = 0;
    {
        const std::lock_guard guard(lock_);
        while (!overflow_.empty()) {
            sent = send_locked(overflow_.front());
            if (may_go_later(sent)) {
                break;
            }
            if (sent < 0) {
                const auto unique = header_of(overflow_.front()).unique;
                if (auto node = out_.extract(unique); !node.empty()) {
                    end_locked(node.mapped());
                    lost.emplace_back(unique, node.mapped());
                }
            }
            overflow_.pop_front();
        }
    }
    for (const auto& [unique, upcall] : lost) {
        give_up(unique, upcall, -EIO);
        given_up(upcall);
    }
    return sent != -ENOBUFS && sent != -ENOMEM;
}

void Upcalls::expire(std::chrono::seconds age, const GivenUp& given_up) {
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
            at = take_off(at);
        }
    }
    for (const auto& [unique, upcall] : old) {
        give_up(unique, upcall, -EIO);
        given_up(upcall);
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
        end_locked(upcall);
    }
    if (header.error == 0) {
        give_back(upcall, late_reply.subspan(sizeof header));
    }
}

void Upcalls::give_back(const Upcall& upcall, std::span<const std::byte> body) {
    switch (static_cast<abi::Opcode>(upcall.opcode)) {
        case abi::Opcode::lookup:
            if (body.size() >= sizeof(abi::EntryOut)) {
                forget(read_as<abi::EntryOut>(body).nodeid);
            }
            break;
        case abi::Opcode::readdirplus:
            for_each_entry(body, [this](const abi::EntryOut& entry, std::string_view name) {
                if (name != "." && name != "..") {  // these two are not counted
                    forget(entry.nodeid);
                }
            });
            break;
        case abi::Opcode::open:
        case abi::Opcode::opendir:
            if (body.size() >= sizeof(abi::OpenOut)) {
                const abi::ReleaseIn release{read_as<abi::OpenOut>(body).fh, 0, 0, 0};
                const bool file = static_cast<abi::Opcode>(upcall.opcode) == abi::Opcode::open;
                forward_own(file ? abi::Opcode::release : abi::Opcode::releasedir, upcall.nodeid,
                            std::as_bytes(std::span(&release, 1)));
            }
            break;
        default:
            break;
    }
}

void Upcalls::forget(std::uint64_t nodeid) {
    const std::uint64_t lookups = 1;
    if (nodeid != 0) {
        forward_own(abi::Opcode::forget, nodeid, std::as_bytes(std::span(&lookups, 1)));
    }
}

void Upcalls::forward_own(abi::Opcode opcode, std::uint64_t nodeid,
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
    return {out_.size(),       overflow_peak_, given_up_count_, late_,
            shares_.waiting(), waited_,        refused_};
}

}  // namespace zc
