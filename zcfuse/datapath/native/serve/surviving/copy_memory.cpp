#include "serve/surviving/copy_memory.hpp"

#include <array>
#include <string>
#include <utility>

namespace zc {

namespace {

constexpr std::uint64_t kMagic = 0x7A63'636F'7069'6501;  // "zccopie"
constexpr auto kName = "the table of copies";

std::uint64_t check_of(std::uint64_t sequence, const CopyMemory::Copy& copy) noexcept {
    const auto sum = mixed(hash_of(copy.before) ^ mixed(hash_of(copy.after)));
    return mixed(sequence ^
                 mixed(copy.number ^ mixed(static_cast<std::uint64_t>(copy.birth) ^ sum)));
}

}  // namespace

struct CopyMemory::Stored {
    Record record;
    std::uint64_t check;
};

struct CopyLayout {
    std::uint64_t magic;
    std::uint64_t last;  // the newest record's sequence; it is written whole by then
    std::array<CopyMemory::Stored, CopyMemory::kMost> place;
};

CopyMemory::CopyMemory() : SurvivingTable("zcfuse-copies", kMagic) {}

CopyMemory::CopyMemory(sys::UniqueFd fd) : SurvivingTable(std::move(fd), kMagic, kName) {
    for (const auto& record : all()) {
        const auto* found = find(record.sequence);
        if (found == nullptr || found->check != check_of(record.sequence, record.copy)) {
            throw damaged(kName, "record " + std::to_string(record.sequence));
        }
    }
}

// The place behind the newest record may be half written, so its old record does not count.
CopyMemory::Stored* CopyMemory::find(std::uint64_t sequence) const noexcept {
    const auto last = at().last;
    return sequence == 0 || sequence > last || last - sequence >= kMost - 1
               ? nullptr
               : &at().place[sequence % kMost];
}

std::uint64_t CopyMemory::begin(const Copy& copy) {
    const std::lock_guard guard(lock_);
    const auto sequence = at().last + 1;
    at().place[sequence % kMost] = {{sequence, copy, State::begun, 0}, check_of(sequence, copy)};
    publish(at().last, sequence);
    return sequence;
}

void CopyMemory::settle(std::uint64_t sequence, std::uint64_t nodeid) {
    const std::lock_guard guard(lock_);
    if (auto* const found = find(sequence); found != nullptr) {
        found->record.nodeid = nodeid;
        publish(found->record.state, State::settled);
    }
}

void CopyMemory::drop(std::uint64_t sequence) {
    const std::lock_guard guard(lock_);
    if (auto* const found = find(sequence); found != nullptr) {
        publish(found->record.state, State::dropped);
    }
}

std::vector<CopyMemory::Record> CopyMemory::all() const {
    const std::lock_guard guard(lock_);
    std::vector<Record> records;
    const auto last = at().last;
    for (auto sequence = last < kMost ? 1 : last - kMost + 2; sequence <= last; ++sequence) {
        if (const auto& record = find(sequence)->record; record.state != State::dropped) {
            records.push_back(record);
        }
    }
    return records;
}

}  // namespace zc
