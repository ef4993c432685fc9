#include "serve/surviving/session_memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

namespace zc {

namespace {

constexpr std::uint64_t kMagic = 0x7A63'7365'7373'6E01;  // "zcsessn"
constexpr auto kName = "the state of the mount";

std::uint64_t check_of(std::span<const std::byte> bytes) noexcept {
    std::uint64_t sum = bytes.size();
    for (const auto byte : bytes) {
        sum = (sum ^ std::to_integer<std::uint64_t>(byte)) * 0x100'0000'01B3;
    }
    return mixed(sum);
}

// Throws where another version of zcfuse made the memory.
sys::UniqueFd of_layout(sys::UniqueFd fd, std::uint32_t layout) {
    if (const auto found = SessionMemory::layout_of(fd.get()); found != layout) {
        throw DamagedState("the state of the mount has layout " + std::to_string(found) +
                           ", and this version of zcfuse reads layout " + std::to_string(layout));
    }
    return fd;
}

template <typename T>
T loaded(const T& at) noexcept {
    return std::atomic_ref<T>(const_cast<T&>(at)).load(std::memory_order_acquire);
}

}  // namespace

struct SessionLayout {
    std::uint64_t magic;
    std::uint32_t layout;
    std::uint32_t generation;
    std::uint32_t init_bytes;  // 0: not yet asked
    std::uint32_t negotiated;
    std::uint64_t init_check;   // of the request
    std::uint64_t reply_check;  // of the reply
    std::array<std::byte, SessionMemory::kLargestInit> init;
    abi::InitOut reply;
    std::array<std::uint64_t, abi::kOpcodes> resent;
    std::uint64_t last_handle;
    std::uint32_t last_number;  // of a layer
    std::uint32_t roots;        // places in use or free
    // Number 0: a free place.
    std::array<SessionMemory::Root, SessionMemory::kMostRoots> root;
};

SessionMemory::SessionMemory(std::uint32_t layout) : SurvivingTable("zcfuse-session", kMagic) {
    publish(at().layout, layout);
}

std::uint32_t SessionMemory::layout_of(int fd) {
    std::array<std::byte, offsetof(SessionLayout, generation)> start{};
    const auto n = ::pread(fd, start.data(), start.size(), 0);
    if (n < 0) {
        throw std::system_error(errno, std::generic_category(), "reading the state of a mount");
    }
    std::uint64_t magic = 0;
    std::uint32_t layout = 0;
    std::memcpy(&magic, start.data(), sizeof magic);
    std::memcpy(&layout, start.data() + offsetof(SessionLayout, layout), sizeof layout);
    if (static_cast<std::size_t>(n) < start.size() || magic != kMagic) {
        throw DamagedState("what was handed over is no state of a zcfuse mount");
    }
    return layout;
}

SessionMemory::SessionMemory(sys::UniqueFd fd, std::uint32_t layout)
    : SurvivingTable(of_layout(std::move(fd), layout), kMagic, kName) {
    const auto is_broken = [&] {
        if (at().init_bytes > kLargestInit || at().roots > kMostRoots) {
            return true;
        }
        const auto reply = std::as_bytes(std::span(&at().reply, 1));
        return check_of({at().init.data(), at().init_bytes}) != at().init_check ||
               (at().negotiated != 0 && check_of(reply) != at().reply_check);
    };
    if (at().init_bytes != 0 && is_broken()) {
        throw damaged(kName, "what INIT agreed on");
    }
}

void SessionMemory::begin_generation() noexcept {
    publish(at().generation, at().generation + 1);
}

std::uint32_t SessionMemory::generation() const noexcept {
    return loaded(at().generation);
}

void SessionMemory::record_init(std::span<const std::byte> request) {
    const auto kept = request.first(std::min(request.size(), kLargestInit));
    publish(at().init_bytes, std::uint32_t{0});
    std::memcpy(at().init.data(), kept.data(), kept.size());
    publish(at().init_check, check_of(kept));
    publish(at().init_bytes, static_cast<std::uint32_t>(kept.size()));
}

void SessionMemory::record_reply(const abi::InitOut& reply) {
    std::memcpy(&at().reply, &reply, sizeof reply);
    publish(at().reply_check, check_of(std::as_bytes(std::span(&reply, 1))));
    publish(at().negotiated, std::uint32_t{1});
}

std::vector<std::byte> SessionMemory::init() const {
    const auto bytes = loaded(at().init_bytes);
    return {at().init.begin(), at().init.begin() + bytes};
}

std::optional<abi::InitOut> SessionMemory::reply() const {
    return loaded(at().negotiated) != 0 ? std::optional(at().reply) : std::nullopt;
}

void SessionMemory::count_resent(std::uint32_t opcode) noexcept {
    auto& count = at().resent[opcode < abi::kOpcodes ? opcode : 0];
    std::atomic_ref(count).fetch_add(1, std::memory_order_relaxed);
}

std::array<std::uint64_t, abi::kOpcodes> SessionMemory::resent() const noexcept {
    std::array<std::uint64_t, abi::kOpcodes> counts{};
    for (std::size_t i = 0; i < counts.size(); ++i) {
        counts[i] = loaded(at().resent[i]);
    }
    return counts;
}

SessionMemory::Root* SessionMemory::find(std::uint64_t nodeid) const noexcept {
    const std::span all(at().root.data(), at().roots);
    const auto found = std::find_if(all.begin(), all.end(), [&](const Root& one) {
        return one.number != 0 && one.nodeid == nodeid;
    });
    return found != all.end() ? &*found : nullptr;
}

std::uint32_t SessionMemory::number_of(const Root& root) {
    const std::lock_guard guard(lock_);
    auto* place = find(root.nodeid);
    if (place != nullptr && place->content == root.content && place->layers == root.layers &&
        place->kind == root.kind) {
        return place->number;
    }
    const auto number = at().last_number + 1;
    publish(at().last_number, at().last_number + root.layers);
    if (place == nullptr) {
        const std::span all(at().root.data(), at().roots);
        place =
            &*std::find_if(all.begin(), all.end(), [](const Root& one) { return one.number == 0; });
        if (place == all.data() + all.size()) {
            if (at().roots == kMostRoots) {
                return number;  // its nodes end with this process
            }
            publish(at().roots, at().roots + 1);
        }
    }
    publish(place->number, std::uint32_t{0});
    place->nodeid = root.nodeid;
    place->content = root.content;
    place->layers = root.layers;
    place->kind = root.kind;
    publish(place->number, number);
    return number;
}

void SessionMemory::drop_root(std::uint64_t nodeid) {
    const std::lock_guard guard(lock_);
    if (auto* place = find(nodeid); place != nullptr) {
        publish(place->number, std::uint32_t{0});
    }
}

std::vector<SessionMemory::Root> SessionMemory::roots() const {
    const std::lock_guard guard(lock_);
    std::vector<Root> roots(at().root.data(), at().root.data() + at().roots);
    std::erase_if(roots, [](const Root& one) { return one.number == 0; });
    return roots;
}

std::uint64_t SessionMemory::next_handle() noexcept {
    return std::atomic_ref(at().last_handle).fetch_add(1, std::memory_order_relaxed) + 1;
}

std::uint64_t SessionMemory::last_handle() const noexcept {
    return loaded(at().last_handle);
}

}  // namespace zc
