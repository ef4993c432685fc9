// Renames are one at a time, and a request that finds nothing under a name waits for the one under
// way. None waits for long: a filesystem that does not answer may never end a rename. After
// one has waited in vain, no other waits for the same rename.
//
// Thread-safe, and outermost.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>

namespace zc {

class Renames {
  public:
    // False: the rename under way takes too long, and end() must not follow.
    bool begin() {
        std::unique_lock guard(lock_);
        const bool free = wait(guard, [this] { return !under_way_ && looks_ == 0; });
        under_way_ = under_way_ || free;
        return free;
    }
    void end() {
        const std::lock_guard guard(lock_);
        under_way_ = stuck_ = false;
        ended_.notify_all();
    }

    // While it lives and is true, no rename begins.
    class Look {
      public:
        explicit Look(Renames& renames) : renames_(renames), begun_(renames.begin_look()) {}
        Look(const Look&) = delete;
        Look& operator=(const Look&) = delete;
        ~Look() {
            if (begun_) {
                renames_.end_look();
            }
        }
        explicit operator bool() const noexcept { return begun_; }

      private:
        Renames& renames_;
        const bool begun_;
    };

  private:
    bool begin_look() {
        std::unique_lock guard(lock_);
        const bool free = wait(guard, [this] { return !under_way_; });
        looks_ += free ? 1 : 0;
        return free;
    }
    void end_look() {
        const std::lock_guard guard(lock_);
        --looks_;
        ended_.notify_all();
    }

    // More than a disk takes, and little for a client.
    static constexpr std::chrono::seconds kPatience{3};

    template <typename Free>
    bool wait(std::unique_lock<std::mutex>& guard, Free free) {
        if (!stuck_ && !ended_.wait_for(guard, kPatience, [&] { return stuck_ || free(); })) {
            stuck_ = under_way_;
        }
        return free();
    }

    std::mutex lock_;
    std::condition_variable ended_;
    bool under_way_ = false;
    bool stuck_ = false;  // the one under way has taken too long
    std::size_t looks_ = 0;
};

}  // namespace zc
