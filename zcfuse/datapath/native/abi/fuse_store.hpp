// The notification that puts bytes into the kernel's cache of an inode (fuse_notify_store).
#pragma once

#include <cstdint>

namespace zc::abi {

inline constexpr std::int32_t kNotifyStore = 4;

// The bytes follow.
struct NotifyStore {
    std::uint64_t nodeid;
    std::uint64_t offset;
    std::uint32_t size;
    std::uint32_t padding;
};
static_assert(sizeof(NotifyStore) == 24);

}  // namespace zc::abi
