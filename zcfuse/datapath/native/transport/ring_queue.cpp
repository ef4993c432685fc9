#include "transport/ring_queue.hpp"

#include <pthread.h>
#include <sys/eventfd.h>

#include <bit>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

#include "sys/threads.hpp"

namespace zc {

namespace {

// How often a thread that waits for the gate checks for a stop.
constexpr auto kLookUp = std::chrono::milliseconds(200);
// Tags of completions: an entry's index, or this.
constexpr std::uint64_t kWoken = ~std::uint64_t{0};
// REGISTER may arrive before the kernel has processed INIT's reply (EAGAIN).
constexpr int kMostRetries = 1000;

void count(std::atomic<std::uint64_t>& counter, std::uint64_t n = 1) noexcept {
    counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
}

sys::UniqueFd make_event() {
    sys::UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!event) {
        throw std::system_error(errno, std::generic_category(), "eventfd");
    }
    return event;
}

bool is_over(int error) noexcept {
    return error == -ENOTCONN || error == -ECONNABORTED || error == -ENODEV || error == -ECANCELED;
}

}  // namespace

class RingQueue::Core {
  public:
    Core(std::uint16_t cpu, int device, const RingOptions& options, std::shared_ptr<RingGate> gate)
        : cpu_(cpu),
          gate_(std::move(gate)),
          event_(make_event()),
          entries_(options.depth, options.payload_bytes, options.prefault_bytes),
          // one more for the eventfd
          ring_(static_cast<unsigned>(options.depth) + 1, device) {}

    ssize_t receive(std::span<std::byte> buffer) noexcept;
    ssize_t reply(std::span<const iovec> pieces) noexcept;
    void close() noexcept;
    RingEntries& entries() noexcept { return entries_; }
    std::span<std::byte> payload(std::uint64_t unique) const noexcept {
        return entries_.payload(unique);
    }
    void add_to(RingCounts& counts) const noexcept;

  private:
    int begin() noexcept;
    int register_entries() noexcept;
    int refuse(int error) noexcept;
    int commit_done() noexcept;
    int send(unsigned wait) noexcept;
    ssize_t handle(const sys::Uring::Completion& completion, std::span<std::byte> buffer) noexcept;
    int again(std::size_t index) noexcept;
    bool all_held() const noexcept {
        return entries_.busy() + refused_.load(std::memory_order_relaxed) >= entries_.depth();
    }
    bool next(sys::Uring::Completion& completion) noexcept;
    bool on_ring_thread() const noexcept {
        return began_.load(std::memory_order_acquire) &&
               ::pthread_equal(thread_, ::pthread_self()) != 0;
    }

    const std::uint16_t cpu_;
    const std::shared_ptr<RingGate> gate_;
    const sys::UniqueFd event_;
    RingEntries entries_;
    sys::Uring ring_;
    std::uint64_t drained_ = 0;  // the ring reads the eventfd into this
    pthread_t thread_{};
    std::atomic<bool> began_{false};
    std::atomic<bool> closed_{false};
    std::uint64_t registering_ = 0;  // one bit per entry whose last command was REGISTER
    std::uint64_t early_ = 0;        // one bit per entry whose request arrived while registering
    int retries_ = 0;
    bool listening_ = false;  // a read of the eventfd is in flight
    bool awaited_ = false;    // a client waits for one of the queued replies
    bool was_full_ = false;   // an entry becomes free after all were held
    unsigned expected_ = 0;   // completions that arrived with the commits of a full queue

    // Entries that the kernel refused.
    std::atomic<std::size_t> refused_{0};
    std::atomic<std::uint64_t> full_{0}, waited_{0}, handed_{0}, requests_{0}, unbound_{0};
};

int RingQueue::Core::begin() noexcept {
    switch (gate_->wait_open(kLookUp)) {
        case RingGate::State::waiting:
            return -EINTR;
        case RingGate::State::open:
            break;
        default:
            return -ECANCELED;
    }
    // Fails if the CPU is offline or not permitted; the thread then runs where it may.
    count(unbound_, sys::bind_to(cpu_) ? 0 : 1);
    thread_ = ::pthread_self();
    int error = ring_.enable();
    if (error == 0) {
        began_.store(true, std::memory_order_release);
        error = register_entries();
    }
    gate_->registered(error);
    // The opener of the gate ends the connection, with the reason.
    return error < 0 ? -ECANCELED : 0;
}

int RingQueue::Core::register_entries() noexcept {
    int why = 0;
    for (std::size_t i = 0; i < entries_.depth(); ++i) {
        if (const int error = ring_.add_register(i, cpu_, entries_.buffers(i)); error < 0) {
            why = refuse(error);
        } else {
            registering_ |= std::uint64_t{1} << i;
        }
    }
    if (gate_->state() != RingGate::State::open) {
        return -ECANCELED;  // too late: the mount continues without the ring, or has ended
    }
    int error = send(0);
    // The kernel refuses at once. An accepted entry completes with its first request, which may be
    // here already: this may be the last queue that the kernel waited for.
    sys::Uring::Completion completion{};
    while (error == 0 && ring_.next(completion)) {
        if (completion.tag == kWoken) {
            listening_ = false;
        } else if (completion.result == -EAGAIN && again(completion.tag) == 0) {
            error = send(0);
        } else if (completion.result < 0) {
            why = refuse(completion.result);
        } else {
            early_ |= std::uint64_t{1} << completion.tag;
        }
    }
    // To the kernel a queue with one entry is complete; releasing it then loses requests.
    return error < 0 || refused_ < entries_.depth() ? error : why;
}

int RingQueue::Core::refuse(int error) noexcept {
    refused_.fetch_add(1, std::memory_order_relaxed);
    return error;
}

int RingQueue::Core::again(std::size_t index) noexcept {
    if (++retries_ > kMostRetries) {
        return -EAGAIN;
    }
    return (registering_ >> index & 1) != 0
               ? ring_.add_register(index, cpu_, entries_.buffers(index))
               : ring_.add_commit(index, cpu_, entries_.commit_id(index));
}

int RingQueue::Core::commit_done() noexcept {
    const bool none_left = all_held();
    auto done = entries_.take_done();
    was_full_ = was_full_ || (done != 0 && none_left);
    while (done != 0) {
        const auto index = static_cast<std::size_t>(std::countr_zero(done));
        done &= done - 1;
        registering_ &= ~(std::uint64_t{1} << index);
        if (const int error = ring_.add_commit(index, cpu_, entries_.commit_id(index)); error < 0) {
            return error;
        }
        awaited_ = awaited_ || entries_.is_awaited(index);
    }
    return 0;
}

int RingQueue::Core::send(unsigned wait) noexcept {
    if (!listening_) {
        if (const int error = ring_.add_read(kWoken, event_.get(), drained_); error < 0) {
            return error;
        }
        listening_ = true;
    }
    awaited_ = false;
    return ring_.submit(wait);
}

ssize_t RingQueue::Core::receive(std::span<std::byte> buffer) noexcept {
    if (!began_.load(std::memory_order_relaxed)) {
        if (const int error = begin(); error < 0) {
            return error;
        }
    }
    for (;;) {
        if (const int error = commit_done(); error < 0) {
            return error;
        }
        if (was_full_) {
            // A request that arrives with a commit, without a wait, had waited for that entry.
            was_full_ = false;
            const int error = send(0);
            if (error < 0 && error != -EINTR) {
                return error;
            }
            expected_ = ring_.ready();
        }
        if (awaited_ || (ring_.ready() == 0 && early_ == 0)) {
            const int error = send(early_ == 0 ? 1 : 0);
            if (error < 0 && error != -EAGAIN && error != -EBUSY) {
                return error;
            }
        }
        sys::Uring::Completion completion{};
        while (next(completion)) {
            if (const auto n = handle(completion, buffer); n != 0) {
                return n;
            }
        }
    }
}

bool RingQueue::Core::next(sys::Uring::Completion& completion) noexcept {
    if (early_ == 0) {
        return ring_.next(completion);
    }
    completion = {static_cast<std::uint64_t>(std::countr_zero(early_)), 0};
    early_ &= early_ - 1;
    return true;
}

// Returns the size of the next request, 0 if none arrived, or -errno.
ssize_t RingQueue::Core::handle(const sys::Uring::Completion& completion,
                                std::span<std::byte> buffer) noexcept {
    const bool waited = expected_ > 0;
    expected_ -= waited ? 1 : 0;
    if (completion.tag == kWoken) {
        listening_ = false;
        return completion.result == -ECANCELED ? -ECANCELED : 0;
    }
    if (completion.result == -EAGAIN || completion.result == -EINTR) {
        return again(completion.tag);
    }
    if (completion.result < 0) {
        // The thread that reads /dev/fuse learns how the connection ended, and reports it.
        return is_over(completion.result) ? -ECANCELED : completion.result;
    }
    retries_ = 0;
    count(requests_);
    count(waited_, waited ? 1 : 0);
    const auto n = entries_.fetch(completion.tag, buffer);
    if (all_held()) {
        count(full_);
    }
    return n == -EMSGSIZE ? 0 : n;
}

ssize_t RingQueue::Core::reply(std::span<const iovec> pieces) noexcept {
    if (closed_.load(std::memory_order_acquire)) {
        return -ENODEV;
    }
    bool first = false;
    const auto sent = entries_.reply(pieces, first);
    if (sent >= 0 && !on_ring_thread()) {
        handed_.fetch_add(1, std::memory_order_relaxed);
        if (first) {
            const std::uint64_t one = 1;
            const auto written = ::write(event_.get(), &one, sizeof one);
            static_cast<void>(written);  // it fails only if the thread is already awake
        }
    }
    return sent;
}

void RingQueue::Core::close() noexcept {
    closed_.store(true, std::memory_order_release);
    ring_.close();
}

void RingQueue::Core::add_to(RingCounts& counts) const noexcept {
    counts.busy += entries_.busy();
    counts.full += full_.load(std::memory_order_relaxed);
    counts.waited += waited_.load(std::memory_order_relaxed);
    counts.handed += handed_.load(std::memory_order_relaxed);
    counts.requests += requests_.load(std::memory_order_relaxed);
    counts.bytes += entries_.mapped_bytes();
    counts.refused += refused_.load(std::memory_order_relaxed);
    counts.unbound += unbound_.load(std::memory_order_relaxed);
}

RingQueue::RingQueue(std::uint16_t cpu, int device, const RingOptions& options,
                     std::shared_ptr<RingGate> gate)
    : core_(std::make_unique<Core>(cpu, device, options, std::move(gate))) {}

RingQueue::~RingQueue() = default;

ssize_t RingQueue::receive(std::span<std::byte> buffer) const noexcept {
    return core_->receive(buffer);
}

void RingQueue::close() const noexcept {
    core_->close();
}

ssize_t RingQueue::reply(std::span<const iovec> pieces) const noexcept {
    return core_->reply(pieces);
}

std::span<std::byte> RingQueue::payload(std::uint64_t unique) const noexcept {
    return core_->payload(unique);
}

std::size_t RingQueue::locked_payload() const noexcept {
    return core_->entries().locked_payload();
}

std::size_t RingQueue::lock_buffers(const RingEntries::Lock& lock) const {
    return core_->entries().lock(lock);
}

void RingQueue::add_to(RingCounts& counts) const noexcept {
    core_->add_to(counts);
}

}  // namespace zc
