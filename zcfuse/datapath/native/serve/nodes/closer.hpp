// One thread closes these files (Tidier in serve/workers.cpp), because close(2) waits for the
// filesystem: a FUSE filesystem gets a FLUSH, which it may never answer.
//
// Thread-safe; the lock is innermost.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace zc {

class Closer {
  public:
    using File = std::shared_ptr<const void>;

    void put(File file) {
        {
            const std::lock_guard guard(lock_);
            files_.push_back(std::move(file));
        }
        wake_.notify_one();
    }

    // Closes files until the time is over or it is stopped.
    void close_for(std::chrono::milliseconds time) {
        const auto end = std::chrono::steady_clock::now() + time;
        std::vector<File> files;
        std::unique_lock guard(lock_);
        while (wake_.wait_until(guard, end, [this] { return stopping_ || !files_.empty(); }) &&
               !stopping_) {
            files.swap(files_);
            guard.unlock();
            files.clear();
            guard.lock();
        }
    }

    void stop() {
        {
            const std::lock_guard guard(lock_);
            stopping_ = true;
        }
        wake_.notify_all();
    }

  private:
    std::mutex lock_;
    std::condition_variable wake_;
    std::vector<File> files_;
    bool stopping_ = false;
};

// Files that go at the end of a block, outside of the locks that the block takes: here, or by the
// Closer where their filesystem may be slow.
class Closing {
  public:
    explicit Closing(Closer& closer) noexcept : closer_(closer) {}
    Closing(const Closing&) = delete;
    Closing& operator=(const Closing&) = delete;
    ~Closing() = default;

    void add(Closer::File file, bool slow) {
        if (slow && file) {
            closer_.put(std::move(file));
        } else {
            here_.push_back(std::move(file));
        }
    }

  private:
    Closer& closer_;
    std::vector<Closer::File> here_;
};

}  // namespace zc
