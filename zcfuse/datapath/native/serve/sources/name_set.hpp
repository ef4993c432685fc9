// A set of names for a pass over the layers of a directory: one text, and a hash table of 12 bytes
// per name. The text becomes the snapshot's.
//
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zc {

class NameSet {
  public:
    // Adds a text that may be there already, and returns where it begins; nothing beyond 4 GiB.
    std::optional<std::uint32_t> append(std::string_view name) {
        if (text_.size() + name.size() >= std::numeric_limits<std::uint32_t>::max()) {
            return std::nullopt;
        }
        const auto start = static_cast<std::uint32_t>(text_.size());
        text_.append(name).push_back('\0');
        return start;
    }
    // Makes a name that was appended a member.
    void insert(std::uint32_t start, std::size_t length) {
        if (2 * (members_.size() + 1) > slots_.size()) {
            grow();
        }
        members_.push_back({start, static_cast<std::uint32_t>(length)});
        place(static_cast<std::uint32_t>(members_.size()));
    }
    bool contains(std::string_view name) const noexcept {
        if (slots_.empty()) {
            return false;
        }
        for (auto at = first(name);; at = (at + 1) & (slots_.size() - 1)) {
            if (slots_[at] == 0) {
                return false;
            }
            if (text_of(slots_[at]) == name) {
                return true;
            }
        }
    }
    std::string take_text() noexcept { return std::move(text_); }

  private:
    static constexpr std::size_t kFirstSlots = 64;
    struct Member {
        std::uint32_t start;
        std::uint32_t length;
    };

    std::string_view text_of(std::uint32_t number) const noexcept {
        const auto& member = members_[number - 1];
        return std::string_view(text_).substr(member.start, member.length);
    }
    std::size_t first(std::string_view name) const noexcept {
        return std::hash<std::string_view>{}(name) & (slots_.size() - 1);
    }
    void place(std::uint32_t number) noexcept {
        auto at = first(text_of(number));
        while (slots_[at] != 0) {
            at = (at + 1) & (slots_.size() - 1);
        }
        slots_[at] = number;
    }
    void grow() {
        slots_.assign(slots_.empty() ? kFirstSlots : 2 * slots_.size(), 0);
        for (std::uint32_t number = 1; number <= members_.size(); ++number) {
            place(number);
        }
    }

    std::string text_;
    std::vector<Member> members_;
    std::vector<std::uint32_t> slots_;  // numbers of members from 1 on; a power of two
};

}  // namespace zc
