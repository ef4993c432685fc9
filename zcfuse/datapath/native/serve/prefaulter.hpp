// The thread that takes the page faults of the windows, so that the serving threads take none.
//
// It faults windows in, one after the other, and locks them within the budget. Windows that a
// serving thread waits for come before prefetched ones. It also unmaps evicted windows, which takes
// as long as faulting them in. It never touches descriptors and makes no mappings. The thread
// shares ownership of its state, so that stop() can leave behind a thread that hangs in a fault of
// a dead filesystem.
//
// Thread-safe: one mutex, a leaf; never held while a window is populated or the table is called.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "serve/window_table.hpp"

namespace zc {

class Prefaulter {
  public:
    // Starts the thread; throws std::system_error when there can be none.
    // `lock_idle`: how long a window must not have been used to lose its lock to a new one.
    Prefaulter(std::shared_ptr<WindowTable> table, std::shared_ptr<WindowTotals> totals,
               std::chrono::milliseconds lock_idle);
    Prefaulter(const Prefaulter&) = delete;
    Prefaulter& operator=(const Prefaulter&) = delete;
    ~Prefaulter() { stop(); }

    // Has the window populated before all prefetched ones and waits for that. Returns 0,
    // -ETIMEDOUT, or -ECANCELED when the thread ends.
    int wait(const WindowKey& key, const WindowRef& window, std::chrono::milliseconds limit);

    // Has the window populated when there is time; false when too many wait already.
    bool ahead(const WindowKey& key, const WindowRef& window);

    // Drops them before any other window is populated; here and now when the thread has ended.
    void discard(WindowRefs windows);

    // Ends the thread and what waits for it, within a few seconds. Any thread, more than once.
    void stop() noexcept;

    pid_t tid() const noexcept;  // 0 once it has ended

  private:
    struct Job {
        WindowKey key;
        WindowRef window;
    };
    struct Shared {
        const std::shared_ptr<WindowTable> table;
        const std::shared_ptr<WindowTotals> totals;
        const std::chrono::milliseconds lock_idle;
        std::atomic<bool> stopping{false};
        std::atomic<pid_t> tid{0};
        std::mutex mutex{};  // guards all that follows
        std::condition_variable work{};
        std::condition_variable done{};
        std::deque<Job> waited_for{};
        std::deque<Job> expected{};
        WindowRefs discarded{};
        WindowRef current{};
        bool started = false;
        bool ended = false;
    };

    static void run(const std::shared_ptr<Shared>& shared) noexcept;
    static void loop(Shared& shared);
    static WindowState settle(Shared& shared, const Job& job);
    static bool lock_within_budget(Shared& shared, const Job& job);
    static bool take_from_budget(Shared& shared, std::size_t bytes);
    static void urge(Shared& shared, const WindowKey& key, const WindowRef& window);

    const std::shared_ptr<Shared> shared_;
    std::mutex joining_;  // of stop() alone, taken before the other
    std::thread thread_;
};

}  // namespace zc
