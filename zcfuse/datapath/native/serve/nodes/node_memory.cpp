#include "serve/nodes/node_memory.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>

namespace zc {

namespace {

constexpr std::uint64_t kMagic = 0x7A63'6E6F'6465'7301;  // "zcnodes"
// Room for half a billion nodes, in 90 GiB of addresses; a process whose address space or file
// size is limited gets room for fewer.
constexpr std::uint32_t kMostShift = 23;
constexpr std::uint32_t kLeastShift = 9;
constexpr std::size_t kHeadersAt = 4096;
constexpr std::size_t kPage = 4096;  // what each stripe begins at a multiple of

constexpr std::size_t whole_pages(std::size_t bytes) noexcept {
    return (bytes + kPage - 1) / kPage * kPage;
}

constexpr std::size_t kRecordsAt =
    whole_pages(kHeadersAt + NodeMemory::kShards * sizeof(NodeMemory::Shard));

// Where a shard begins within its stripe: the first records and names of all shards are used most,
// and would compete for the same lines of a processor's cache.
constexpr std::size_t stagger(std::size_t shard) noexcept {
    return shard * (kPage / NodeMemory::kShards);
}

constexpr std::size_t record_stripe(std::uint32_t shift) noexcept {
    return whole_pages((sizeof(TableNode) << shift) + kPage);
}

constexpr std::size_t name_stripes(std::uint32_t shift) noexcept {
    return whole_pages(2 * NodeMemory::kUnit * (std::size_t{3} << shift) + kPage);
}

std::uint64_t check_of(const NodeMemory::Header& header) noexcept {
    return mixed(header.magic ^ mixed(std::uint64_t{header.layout} << 32 | header.shift));
}

std::uint32_t units_of(std::size_t length) noexcept {
    return static_cast<std::uint32_t>((TableName::kText + length + 1 + NodeMemory::kUnit - 1) /
                                      NodeMemory::kUnit);
}

std::uint32_t check_of(std::uint64_t nodeid, const Identity& identity) noexcept {
    return static_cast<std::uint32_t>(mixed(nodeid ^ hash_of(identity)));
}

}  // namespace

void TableNode::identify(std::uint64_t as, const Identity& identity) noexcept {
    ino = identity.ino;
    birth = identity.birth;
    lease = identity.lease;
    type = static_cast<std::uint8_t>(identity.type >> kTypeShift);
    check = check_of(as, identity);
}

void NodeMemory::damaged(const std::string& what) {
    throw DamagedState("the table of nodes is damaged: " + what);
}

std::size_t NodeMemory::bytes(std::uint32_t shift) noexcept {
    return kRecordsAt + kShards * (record_stripe(shift) + name_stripes(shift));
}

NodeMemory::NodeMemory() {
    for (shift_ = kMostShift;; --shift_) {
        try {
            file_ = sys::MemoryFile("zcfuse-nodes", bytes(shift_));
            break;
        } catch (const std::system_error& error) {
            const int code = error.code().value();
            if (shift_ == kLeastShift || (code != ENOMEM && code != EFBIG && code != EINVAL)) {
                throw;
            }
        }
    }
    Header header{kMagic, kLayout, shift_, 0};
    header.check = check_of(header);
    std::memcpy(file_.data(), &header, sizeof header);
}

NodeMemory::NodeMemory(sys::UniqueFd fd) : taken_(true), file_(std::move(fd)) {
    Header header{};
    if (file_.size() < kRecordsAt) {
        damaged("it is too short");
    }
    std::memcpy(&header, file_.data(), sizeof header);
    if (header.magic != kMagic) {
        throw DamagedState("what was handed over is no table of nodes");
    }
    if (header.layout != kLayout) {
        throw DamagedState("the table of nodes has layout " + std::to_string(header.layout) +
                           ", and this version of zcfuse reads layout " + std::to_string(kLayout));
    }
    if (header.check != check_of(header) || header.shift > kMostShift ||
        file_.size() != bytes(header.shift)) {
        damaged("its header is not what was written");
    }
    shift_ = header.shift;
}

std::size_t NodeMemory::records_at(std::size_t shard) const noexcept {
    return kRecordsAt + shard * record_stripe(shift_) + stagger(shard);
}

std::size_t NodeMemory::names_at(std::size_t shard) const noexcept {
    return kRecordsAt + kShards * record_stripe(shift_) + shard * name_stripes(shift_) +
           stagger(shard);
}

NodeMemory::Shard& NodeMemory::shard(std::size_t number) const noexcept {
    return reinterpret_cast<Shard*>(file_.data() + kHeadersAt)[number];
}

TableNode* NodeMemory::records(std::size_t shard) const noexcept {
    return reinterpret_cast<TableNode*>(file_.data() + records_at(shard));
}

std::byte* NodeMemory::names(std::size_t shard) const noexcept {
    return file_.data() + names_at(shard);
}

std::uint32_t NodeMemory::new_record(std::size_t number, std::uint32_t& free_records) const {
    if (free_records != 0) {
        const auto index = free_records;
        free_records = record(number, index).next_by_nodeid;
        return index;
    }
    auto& shard = this->shard(number);
    if (shard.records + 1 >= capacity()) {
        throw std::bad_alloc();
    }
    publish(shard.records, shard.records + 1);
    return shard.records;
}

std::uint32_t NodeMemory::take_units(std::size_t number, std::uint32_t units) const {
    auto& shard = this->shard(number);
    if (auto& first = shard.free_names[units]; first != 0) {
        const auto at = first;
        publish(first, name(number, at).next);
        return at;
    }
    auto& used = shard.units[shard.stripe];
    const auto start = shard.stripe * units_of_stripe();
    const auto at = start + std::max<std::uint32_t>(used, 1);  // 0 stands for no name
    if (at + units > start + units_of_stripe()) {
        throw std::bad_alloc();
    }
    publish(used, at + units - start);
    return at;
}

std::uint32_t NodeMemory::new_name(std::size_t shard, std::uint64_t parent, std::string_view text,
                                   std::uint32_t next) const {
    if (text.size() > kLongestName) {
        throw std::bad_alloc();
    }
    const auto at = take_units(shard, units_of(text.size()));
    auto& made = name(shard, at);
    made.parent = parent;
    made.next = next;
    made.length = static_cast<std::uint16_t>(text.size());
    auto* into = reinterpret_cast<char*>(&made) + TableName::kText;
    std::memcpy(into, text.data(), text.size());
    into[text.size()] = '\0';
    return at;
}

void NodeMemory::free_name(std::size_t number, std::uint32_t at) const noexcept {
    auto& gone = name(number, at);
    auto& first = shard(number).free_names[units_of(gone.length)];
    publish(gone.next, first);
    publish(first, at);
}

bool NodeMemory::is_name(std::size_t number, std::uint32_t at) const noexcept {
    const auto stripe = at / units_of_stripe();
    const auto inside = at % units_of_stripe();
    if (stripe > 1 || inside == 0 || inside >= shard(number).units[stripe]) {
        return false;
    }
    const auto& found = name(number, at);
    return found.length <= kLongestName &&
           inside + units_of(found.length) <= shard(number).units[stripe] &&
           found.text().data()[found.length] == '\0';
}

void NodeMemory::verify(std::size_t number) const {
    const auto& shard = this->shard(number);
    if (shard.records >= capacity() || shard.stripe > 1 || shard.units[0] > units_of_stripe() ||
        shard.units[1] > units_of_stripe()) {
        damaged("the header of shard " + std::to_string(number));
    }
    for (std::uint32_t size = 0; size < kSizes; ++size) {
        auto left = shard.units[0] + shard.units[1];
        for (auto at = shard.free_names[size]; at != 0; at = name(number, at).next) {
            if (!is_name(number, at) || units_of(name(number, at).length) != size || left-- == 0) {
                damaged("the free names of shard " + std::to_string(number));
            }
        }
    }
}

void NodeMemory::move_names(std::size_t number) const {
    auto& shard = this->shard(number);
    const auto from = shard.stripe;
    for (auto& first : shard.free_names) {
        publish(first, std::uint32_t{0});
    }
    if (shard.units[1 - from] == 0) {
        publish(shard.stripe, 1 - from);
    }
    const auto in_old = [&](std::uint32_t at) {
        return at != 0 && at / units_of_stripe() != shard.stripe;
    };
    for (std::uint32_t index = 1; index <= shard.records; ++index) {
        auto& owner = record(number, index);
        if (owner.nodeid == 0) {
            continue;
        }
        for (auto* at = &owner.name; *at != 0; at = &name(number, *at).next) {
            if (in_old(*at)) {
                const auto& old = name(number, *at);
                publish(*at, new_name(number, old.parent, old.text(), old.next));
            }
        }
    }
    const auto old = 1 - shard.stripe;
    publish(shard.units[old], std::uint32_t{0});
    file_.release(names_at(number) + old * stripe_bytes(), stripe_bytes());
}

void NodeMemory::release_records(std::size_t number) const noexcept {
    const auto used = sizeof(TableNode) * (shard(number).records + std::size_t{1});
    file_.release(records_at(number) + used, (sizeof(TableNode) << shift_) - used);
}

}  // namespace zc
