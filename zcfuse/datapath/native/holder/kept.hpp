// The descriptors that outlive the serving process, by name: the session, its clones, the state.
// A fixed table: no allocation. The holder never reads from them and never polls them, because a
// poll of /dev/fuse would wake it for each request.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "holder/messages.hpp"
#include "sys/unique_fd.hpp"

namespace zc::holder {

struct Kept {
    std::array<char, kTextBytes> name{};
    sys::UniqueFd descriptor;
};

class KeptDescriptors {
  public:
    // Holds a descriptor, in place of an earlier one of the same name. False if the table is full.
    bool keep(const std::array<char, kTextBytes>& name, sys::UniqueFd descriptor) noexcept {
        const auto end = table_.begin() + static_cast<std::ptrdiff_t>(used_);
        auto found = std::find_if(table_.begin(), end,
                                  [&name](const Kept& one) { return one.name == name; });
        if (found == end) {
            if (used_ == table_.size()) {
                return false;
            }
            found->name = name;
            ++used_;
        }
        found->descriptor = std::move(descriptor);
        return true;
    }
    void drop(const std::array<char, kTextBytes>& name) noexcept {
        const auto end = table_.begin() + static_cast<std::ptrdiff_t>(used_);
        const auto found = std::find_if(table_.begin(), end,
                                        [&name](const Kept& one) { return one.name == name; });
        if (found != end) {
            *found = std::move(table_[--used_]);
            table_[used_] = {};
        }
    }
    // Obeys a message that is about a descriptor to keep. False: one that had to be kept is not, so
    // the mount would not survive.
    bool obey(const Message& message, sys::UniqueFd& with) noexcept {
        switch (message.kind) {
            case Kind::keep:
                return with && keep(message.text, std::move(with));
            case Kind::keep_if_room:
                if (with) {
                    keep(message.text, std::move(with));
                }
                return true;
            case Kind::drop:
                drop(message.text);
                return true;
            default:
                return true;
        }
    }
    std::span<const Kept> all() const noexcept { return {table_.data(), used_}; }
    bool empty() const noexcept { return used_ == 0; }

  private:
    // 1024 of them are files without a name (serve/nodes/orphans.hpp).
    std::array<Kept, 1184> table_;
    std::size_t used_ = 0;
};

}  // namespace zc::holder
