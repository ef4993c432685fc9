#include "serve/coherence/read_leases.hpp"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "sys/leases.hpp"
#include "sys/syscalls.hpp"
#include "sys/threads.hpp"

namespace zc {

// A file in use; the lease ends with it.
class ReadLeases::Use {
  public:
    Use(std::weak_ptr<ReadLeases> leases, Shared lease)
        : leases_(std::move(leases)), lease_(std::move(lease)) {}
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    ~Use() {
        if (const auto leases = leases_.lock()) {
            leases->end(lease_);
        }
    }
    const sys::UniqueFd* file() const noexcept { return lease_->file.get(); }

  private:
    const std::weak_ptr<ReadLeases> leases_;
    const Shared lease_;
};

ReadLeases::File ReadLeases::enrol(std::uint64_t nodeid, File file) {
    auto lease = std::make_shared<Lease>(Lease{nodeid, std::move(file)});
    const auto use = std::make_shared<const Use>(weak_from_this(), lease);
    const std::unique_lock guard(lock_);
    leases_.emplace(nodeid, std::move(lease));
    return {use, use->file()};
}

int ReadLeases::take(std::uint64_t nodeid, const sys::UniqueFd& file) {
    const std::unique_lock guard(lock_);
    if (stopping_) {
        return -ESRCH;
    }
    const auto [begin, end] = leases_.equal_range(nodeid);
    if (std::any_of(begin, end, [](const auto& one) { return one.second->state == State::held; })) {
        return 0;
    }
    const auto enrolled =
        std::find_if(begin, end, [&](const auto& one) { return one.second->file.get() == &file; });
    if (enrolled == end) {
        return -ENOENT;
    }
    auto& lease = *enrolled->second;
    if (lease.state == State::ending) {
        return -EAGAIN;  // a writer waits for it
    }
    const int error = sys::take_read_lease(lease.file->get(), thread_);
    lease.state = error == 0 ? State::held : State::none;
    return error;
}

bool ReadLeases::holds(std::uint64_t nodeid) const {
    const std::shared_lock guard(lock_);
    const auto [begin, end] = leases_.equal_range(nodeid);
    return std::any_of(begin, end,
                       [](const auto& one) { return one.second->state == State::held; });
}

void ReadLeases::attach() {
    const std::unique_lock guard(lock_);
    thread_ = sys::thread_id();
}

void ReadLeases::run() {
    // A writer waits, and must not wait for readers of the mount too.
    sys::set_policy(sys::thread_id(), sys::Policy::fifo);
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGIO);
    while (!stopping_) {
        if (::sigwaitinfo(&signals, nullptr) == SIGIO) {
            give_up_broken();
        }
    }
}

void ReadLeases::give_up_broken() {
    std::vector<Shared> broken = held();
    std::erase_if(broken,
                  [](const Shared& lease) { return sys::has_read_lease(lease->file->get()); });
    {
        const std::unique_lock guard(lock_);
        std::erase_if(broken, [](const Shared& lease) { return lease->state != State::held; });
        for (const auto& lease : broken) {
            lease->state = State::ending;
        }
    }
    broken_.fetch_add(broken.size(), std::memory_order_relaxed);
    for (auto& lease : broken) {
        give_back_after_push(std::move(lease));
    }
}

std::vector<ReadLeases::Shared> ReadLeases::held() const {
    std::vector<Shared> found;
    const std::shared_lock guard(lock_);
    for (const auto& [nodeid, lease] : leases_) {
        if (lease->state == State::held) {
            found.push_back(lease);
        }
    }
    return found;
}

void ReadLeases::end(const Shared& lease) {
    bool held = false;
    {
        const std::unique_lock guard(lock_);
        const auto [begin, end] = leases_.equal_range(lease->nodeid);
        const auto found =
            std::find_if(begin, end, [&](const auto& one) { return one.second == lease; });
        if (found != end) {
            leases_.erase(found);
        }
        held = lease->state == State::held;
        lease->state = held ? State::ending : lease->state;
    }
    if (held) {
        give_back_after_push(lease);
    }
}

// Given back explicitly: a forked child may have the file open too, and the lease would stay.
void ReadLeases::give_back_after_push(Shared lease) {
    Push push;
    push.node = lease->nodeid;
    push.since = Clock::now();
    push.then = [leases = shared_from_this(), lease = std::move(lease)] {
        const std::unique_lock guard(leases->lock_);
        sys::give_back_lease(lease->file->get());
        lease->state = State::none;
    };
    pushers_.post(std::move(push));
}

void ReadLeases::stop() {
    stopping_ = true;
    const std::unique_lock guard(lock_);
    for (const auto& [nodeid, lease] : leases_) {
        if (lease->state != State::none) {
            sys::give_back_lease(lease->file->get());
            lease->state = State::none;
        }
    }
}

ReadLeases::Statistics ReadLeases::statistics() const {
    const std::shared_lock guard(lock_);
    const auto held = std::count_if(leases_.begin(), leases_.end(), [](const auto& one) {
        return one.second->state == State::held;
    });
    return {static_cast<std::size_t>(held), broken_};
}

}  // namespace zc
