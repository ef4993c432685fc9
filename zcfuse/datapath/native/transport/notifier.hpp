// Notifications to the kernel, from a thread that neither serves nor forwards: the kernel may block
// one until a request on the same inode is answered.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

#include "transport/channel.hpp"

namespace zc {

class Notifier {
  public:
    // Queues one message as it is (header with `unique` 0, code in `error`). Any thread.
    void post(std::span<const std::byte> message);
    // Each queues an invalidation: of an inode, of a name, of all names.
    void post_invalidate_inode(std::uint64_t nodeid);
    void post_invalidate_entry(std::uint64_t parent, std::string_view name);
    void post_new_epoch();
    // Runs until stop(); the caller's thread is the notifying one.
    void run(const Channel& channel);
    void stop();
    std::uint64_t sent() const;

    // Each returns 0 or -errno. A serving thread may only invalidate attributes: offset -1.
    static int invalidate_inode(const Channel& channel, std::uint64_t nodeid, std::int64_t offset,
                                std::int64_t length);
    static int invalidate_entry(const Channel& channel, std::uint64_t parent,
                                std::span<const std::byte> name);
    static int new_epoch(const Channel& channel);
    static int resend(const Channel& channel);

  private:
    void post(std::uint32_t code, std::span<const std::byte> body, std::string_view name = {});

    mutable std::mutex lock_;  // innermost
    std::condition_variable wake_;
    std::deque<std::vector<std::byte>> queue_;
    std::uint64_t sent_ = 0;
    bool stopping_ = false;
};

}  // namespace zc
