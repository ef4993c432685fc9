#include "serve/prefaulter.hpp"

#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <iterator>
#include <utility>

#include "sys/syscalls.hpp"

namespace zc {

namespace {

// A window takes a millisecond or less from the page cache, and some tens of them from a disk.
constexpr std::size_t kMostExpected = 16;
constexpr std::chrono::seconds kPatience{5};  // with a thread that shall end

// Signals are for the thread that the program handles them on: this one and its children block
// them.
class SignalsBlocked {
  public:
    SignalsBlocked() noexcept {
        sigset_t all;
        sigfillset(&all);
        ::pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    SignalsBlocked(const SignalsBlocked&) = delete;
    SignalsBlocked& operator=(const SignalsBlocked&) = delete;

  private:
    sigset_t before_{};
};

}  // namespace

Prefaulter::Prefaulter(std::shared_ptr<WindowTable> table, std::shared_ptr<WindowTotals> totals,
                       std::chrono::milliseconds lock_idle)
    : shared_(new Shared{std::move(table), std::move(totals), lock_idle}) {
    {
        const SignalsBlocked blocked;
        thread_ = std::thread([shared = shared_] { run(shared); });
    }
    std::unique_lock lock(shared_->mutex);
    shared_->done.wait(lock, [this] { return shared_->started; });
}

int Prefaulter::wait(const WindowKey& key, const WindowRef& window,
                     std::chrono::milliseconds limit) {
    Shared& shared = *shared_;
    std::unique_lock lock(shared.mutex);
    if (window->state() != WindowState::pending) {
        return 0;
    }
    urge(shared, key, window);
    const bool over = shared.done.wait_for(lock, limit, [&] {
        return window->state() != WindowState::pending || shared.stopping.load() || shared.ended;
    });
    if (!over) {
        return -ETIMEDOUT;
    }
    return window->state() != WindowState::pending ? 0 : -ECANCELED;
}

bool Prefaulter::ahead(const WindowKey& key, const WindowRef& window) {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->stopping.load() || shared_->expected.size() >= kMostExpected) {
        return false;
    }
    shared_->expected.push_back({key, window});
    shared_->work.notify_one();
    return true;
}

void Prefaulter::discard(WindowRefs windows) {
    if (windows.empty()) {
        return;
    }
    const std::lock_guard lock(shared_->mutex);
    if (!shared_->stopping.load()) {
        auto& discarded = shared_->discarded;
        discarded.insert(discarded.end(), std::make_move_iterator(windows.begin()),
                         std::make_move_iterator(windows.end()));
        shared_->work.notify_one();
    }
}

void Prefaulter::stop() noexcept {
    const std::lock_guard joining(joining_);
    std::unique_lock lock(shared_->mutex);
    shared_->stopping.store(true);
    shared_->work.notify_all();
    shared_->done.notify_all();
    if (!thread_.joinable()) {
        return;
    }
    if (shared_->done.wait_for(lock, kPatience, [this] { return shared_->ended; })) {
        lock.unlock();
        thread_.join();
    } else {
        thread_.detach();
    }
}

pid_t Prefaulter::tid() const noexcept {
    return shared_->tid.load();
}

void Prefaulter::run(const std::shared_ptr<Shared>& shared) noexcept {
    ::pthread_setname_np(::pthread_self(), "zc-prefault");
    shared->tid.store(sys::thread_id());
    try {
        loop(*shared);
    } catch (...) {  // out of memory: who waits gets -ECANCELED and serves by another path
        shared->stopping.store(true);
    }
    std::deque<Job> left;
    WindowRefs discarded;
    const std::lock_guard lock(shared->mutex);
    shared->tid.store(0);
    shared->started = true;
    shared->ended = true;
    shared->current.reset();
    left.swap(shared->waited_for);
    discarded.swap(shared->discarded);
    shared->expected.clear();
    shared->done.notify_all();
}

void Prefaulter::loop(Shared& shared) {
    std::unique_lock lock(shared.mutex);
    shared.started = true;
    shared.done.notify_all();
    lock.unlock();
    for (;;) {
        lock.lock();
        shared.work.wait(lock, [&shared] {
            return shared.stopping.load() || !shared.waited_for.empty() ||
                   !shared.expected.empty() || !shared.discarded.empty();
        });
        if (shared.stopping.load()) {
            return;
        }
        if (!shared.discarded.empty()) {
            const WindowRefs discarded = std::exchange(shared.discarded, {});
            lock.unlock();
            continue;
        }
        auto& queue = shared.waited_for.empty() ? shared.expected : shared.waited_for;
        Job job = std::move(queue.front());
        queue.pop_front();
        shared.current = job.window;
        lock.unlock();
        const WindowState outcome = settle(shared, job);
        lock.lock();
        // Drop our references before waking the waiters, so that theirs is the last and the window
        // can be evicted.
        job.window->set_state(outcome);
        shared.current.reset();
        const WindowRef last = job.window.use_count() == 1 ? std::move(job.window) : nullptr;
        job.window.reset();
        shared.done.notify_all();
        lock.unlock();  // before the last holder unmaps
    }
}

WindowState Prefaulter::settle(Shared& shared, const Job& job) {
    if (shared.stopping.load()) {
        return WindowState::pending;
    }
    if (lock_within_budget(shared, job)) {
        return WindowState::ready;
    }
    const int error = job.window->populate(shared.stopping);
    if (error == -ECANCELED) {
        return WindowState::pending;
    }
    if (error == -EFAULT) {
        return WindowState::broken;
    }
    shared.totals->unlocked.fetch_add(1, std::memory_order_relaxed);
    if (error != 0) {
        shared.totals->unpopulated.fetch_add(1, std::memory_order_relaxed);
    }
    return WindowState::ready;
}

bool Prefaulter::lock_within_budget(Shared& shared, const Job& job) {
    if (!take_from_budget(shared, job.window->bytes()) || job.window->lock() != 0) {
        return false;
    }
    shared.table->mark_locked(job.key, job.window);
    return true;
}

bool Prefaulter::take_from_budget(Shared& shared, std::size_t bytes) {
    LockBudget& budget = *shared.totals->budget;
    const auto can_be_freed = [&] {
        const std::size_t free = budget.limit() - budget.used();
        return shared.totals->locked.load(std::memory_order_relaxed) + free >= bytes;
    };
    while (!budget.try_take(bytes)) {
        const WindowRef oldest =
            can_be_freed() ? shared.table->take_oldest_locked(shared.lock_idle) : nullptr;
        if (oldest == nullptr) {
            return false;
        }
        oldest->unlock();
        shared.totals->unlocked.fetch_add(1, std::memory_order_relaxed);
    }
    return true;
}

// Moves a queued window to the front; the one being populated needs no urging.
void Prefaulter::urge(Shared& shared, const WindowKey& key, const WindowRef& window) {
    const auto is_it = [&window](const Job& job) { return job.window == window; };
    const auto queued = [&](const std::deque<Job>& jobs) {
        return std::find_if(jobs.begin(), jobs.end(), is_it);
    };
    if (shared.current == window || queued(shared.waited_for) != shared.waited_for.end()) {
        return;
    }
    shared.waited_for.push_back({key, window});
    if (const auto at = queued(shared.expected); at != shared.expected.end()) {
        shared.expected.erase(at);
    }
    shared.work.notify_one();
}

}  // namespace zc
