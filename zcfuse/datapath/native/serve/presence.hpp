// Which pieces of a file that is being fetched are there, so that serving threads may read them.
//
// Control shows a piece once this mount's workers have written or verified its bytes. A READ that
// covers a hidden piece goes to control, which may also hide a piece that is there, to hear of the
// READ that reaches it.
//
// Thread-safe. The number of pieces is fixed.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace zc {

class Presence {
  public:
    // `piece_bytes` is more than 0. All pieces are hidden at first.
    Presence(std::size_t pieces, std::uint64_t piece_bytes)
        : piece_bytes_(piece_bytes), shown_(pieces) {}
    Presence(const Presence&) = delete;
    Presence& operator=(const Presence&) = delete;
    ~Presence() = default;

    // The pieces [first, stop); those behind the last one do not count.
    void show(std::size_t first, std::size_t stop) noexcept { put(first, stop, true); }
    void hide(std::size_t first, std::size_t stop) noexcept { put(first, stop, false); }

    // Returns true if all pieces of a range are shown, without those behind the last one.
    bool shows(std::uint64_t offset, std::size_t size) const noexcept {
        const auto pieces = shown_.size();
        const auto first = std::min<std::uint64_t>(offset / piece_bytes_, pieces);
        const auto more = offset % piece_bytes_ + size;
        const auto stop =
            first + std::min<std::uint64_t>(
                        more / piece_bytes_ + (more % piece_bytes_ != 0 ? 1 : 0), pieces - first);
        return std::all_of(shown_.begin() + static_cast<std::ptrdiff_t>(first),
                           shown_.begin() + static_cast<std::ptrdiff_t>(stop),
                           [](const auto& piece) { return piece.load(std::memory_order_acquire); });
    }

  private:
    void put(std::size_t first, std::size_t stop, bool value) noexcept {
        for (auto piece = first; piece < std::min(stop, shown_.size()); ++piece) {
            shown_[piece].store(value, std::memory_order_release);
        }
    }

    const std::uint64_t piece_bytes_;
    std::vector<std::atomic<bool>> shown_;
};

}  // namespace zc
