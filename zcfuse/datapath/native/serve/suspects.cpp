#include "serve/suspects.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <system_error>

#include "abi/fuse.hpp"

namespace zc {

namespace {

std::uint64_t number_of(std::uint64_t unique) noexcept {
    return unique & ~abi::kResendBit;
}

// Numbers of the kernel are even, and follow one another.
std::size_t place_of(std::uint64_t number) noexcept {
    return static_cast<std::size_t>(number >> 1);
}

}  // namespace

Suspects::Suspects(int file) {
    void* const memory =
        ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
    if (memory == MAP_FAILED) {
        throw std::system_error(errno, std::generic_category(), "mapping the requests under way");
    }
    slots_ = {static_cast<Slot*>(memory), kSlots};
    for (auto& slot : slots_) {
        if (slot.here == 0) {
            release(slot);  // answered before the last death, or interrupted since
        } else {
            ++slot.deaths;
            slot.here = 0;
        }
    }
}

Suspects::~Suspects() {
    ::munmap(slots_.data(), kBytes);
}

Suspects::Slot* Suspects::find(std::uint64_t unique) const noexcept {
    for (std::size_t step = 0; step < kNear; ++step) {
        auto& slot = slots_[(place_of(unique) + step) % kSlots];
        if (slot.unique.load(std::memory_order_acquire) == unique) {
            return &slot;
        }
    }
    return nullptr;
}

bool Suspects::begin(std::uint64_t unique, std::uint32_t opcode, std::uint64_t nodeid) noexcept {
    const auto number = number_of(unique);
    if (number == 0) {
        return true;  // no reply is due, and it does not come again
    }
    if ((unique & abi::kResendBit) != 0) {
        if (Slot* const known = find(number); known != nullptr) {
            known->here = 1;
            return known->deaths < kMostDeaths;
        }
    }
    for (std::size_t step = 0; step < kNear; ++step) {
        auto& slot = slots_[(place_of(number) + step) % kSlots];
        std::uint64_t expected = 0;
        if (slot.unique.compare_exchange_strong(expected, number, std::memory_order_acq_rel)) {
            slot.opcode = opcode;
            slot.nodeid = nodeid;
            slot.here = 1;
            break;
        }
    }
    return true;
}

void Suspects::done(std::uint64_t unique) noexcept {
    const auto number = number_of(unique);
    if (Slot* const slot = number == 0 ? nullptr : find(number); slot != nullptr) {
        release(*slot);
    }
}

void Suspects::release(Slot& slot) noexcept {
    slot.here = 0;
    slot.deaths = 0;
    slot.unique.store(0, std::memory_order_release);
}

std::vector<Suspects::Suspect> Suspects::all() const {
    std::vector<Suspect> found;
    for (const auto& slot : slots_) {
        const auto unique = slot.unique.load(std::memory_order_acquire);
        if (unique != 0 && slot.deaths > 0) {
            found.push_back({unique, slot.nodeid, slot.opcode, slot.deaths});
        }
    }
    return found;
}

}  // namespace zc
