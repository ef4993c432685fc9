#include "serve/surviving/journal.hpp"

#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "serve/surviving/publish.hpp"

namespace zc {

namespace {

constexpr std::uint64_t kMagic = 0x7A63'6A72'6E61'6C01;  // "zcjrnal"
constexpr std::size_t kHalfAt = 4096;
constexpr std::size_t kHalfBytes = std::size_t{1} << 30;

struct RecordHeader {
    std::uint32_t length;
    std::uint32_t check;
};

std::uint32_t check_of(std::string_view record) noexcept {
    std::uint64_t sum = record.size();
    for (const char byte : record) {
        sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100'0000'01B3;
    }
    return static_cast<std::uint32_t>(mixed(sum));
}

constexpr std::uint64_t aligned(std::uint64_t size) noexcept {
    return (size + 7) & ~std::uint64_t{7};
}

}  // namespace

struct Journal::Header {
    std::uint64_t magic;
    std::uint32_t layout;
    std::uint32_t valid;    // half: 0 or 1
    std::uint64_t used[2];  // bytes of each half
};

Journal::Journal() : file_("zcfuse-control", kHalfAt + 2 * kHalfBytes) {
    header() = Header{kMagic, kLayout, 0, {0, 0}};
}

Journal::Journal(sys::UniqueFd fd) : file_(std::move(fd)) {
    if (file_.size() != kHalfAt + 2 * kHalfBytes || header().magic != kMagic ||
        header().layout != kLayout || header().valid > 1 ||
        header().used[header().valid] > kHalfBytes) {
        throw DamagedState("control's records are damaged: their header is not what was written");
    }
    each([](std::string_view) {});
}

Journal::Header& Journal::header() const noexcept {
    return *reinterpret_cast<Header*>(file_.data());
}

std::byte* Journal::half(std::uint32_t number) const noexcept {
    return file_.data() + kHalfAt + number * kHalfBytes;
}

std::uint64_t Journal::write(std::uint32_t number, std::uint64_t used,
                             std::string_view record) const {
    if (record.size() > kLargestRecord) {
        throw std::system_error(EMSGSIZE, std::generic_category(), "a record of control's");
    }
    const auto end = used + sizeof(RecordHeader) + aligned(record.size());
    if (end > kHalfBytes) {
        throw std::system_error(ENOSPC, std::generic_category(), "control's records");
    }
    const RecordHeader made{static_cast<std::uint32_t>(record.size()), check_of(record)};
    std::memcpy(half(number) + used, &made, sizeof made);
    std::memcpy(half(number) + used + sizeof made, record.data(), record.size());
    return end;
}

void Journal::append(std::string_view record) {
    const std::lock_guard guard(lock_);
    auto& used = header().used[header().valid];
    publish(used, write(header().valid, used, record));
}

void Journal::replace(std::span<const std::string> records) {
    const std::lock_guard guard(lock_);
    const auto old = header().valid;
    const auto fresh = 1 - old;
    std::uint64_t used = 0;
    for (const auto& record : records) {
        used = write(fresh, used, record);
    }
    publish(header().used[fresh], used);
    publish(header().valid, fresh);
    file_.release(kHalfAt + old * kHalfBytes, kHalfBytes);
}

template <typename Visit>
void Journal::each(Visit visit) const {
    const auto* from = half(header().valid);
    const auto used = header().used[header().valid];
    for (std::uint64_t at = 0; at < used;) {
        RecordHeader found{};
        std::memcpy(&found, from + at, sizeof found);
        at += sizeof found;
        const std::string_view record(reinterpret_cast<const char*>(from + at), found.length);
        if (found.length > kLargestRecord || at + aligned(found.length) > used ||
            check_of(record) != found.check) {
            throw DamagedState("control's records are damaged at byte " + std::to_string(at));
        }
        visit(record);
        at += aligned(found.length);
    }
}

std::vector<std::string> Journal::records() const {
    std::vector<std::string> records;
    const std::lock_guard guard(lock_);
    each([&](std::string_view record) { records.emplace_back(record); });
    return records;
}

}  // namespace zc
