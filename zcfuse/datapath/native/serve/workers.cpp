#include "serve/workers.hpp"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <optional>
#include <utility>

#include "serve/relay.hpp"
#include "serve/server.hpp"

namespace zc {

namespace {

int nudge_signal() {
    return SIGRTMIN + 5;
}

void be_deaf_to_signals() {
    sigset_t all;
    ::sigfillset(&all);
    ::sigdelset(&all, nudge_signal());
    ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

// The notifying thread: the notifier itself is shared.
class NotifierThread {
  public:
    NotifierThread(std::shared_ptr<State> state, std::shared_ptr<const DeviceChannel> channel)
        : state_(std::move(state)),
          channel_(std::move(channel)),
          counts_(state_->ledger.join("notify")) {}
    void run() { state_->notifier.run(*channel_); }

  private:
    std::shared_ptr<State> state_;
    std::shared_ptr<const DeviceChannel> channel_;
    std::shared_ptr<ThreadCounts> counts_;
};

// A queue's thread. Lets go of the ring at its end; otherwise the ring would keep the connection
// alive.
class RingThread {
  public:
    RingThread(std::shared_ptr<State> state, std::shared_ptr<const RingQueue> queue)
        : queue_(queue), server_(std::move(state), std::move(queue)) {}
    void run() noexcept {
        server_.run();
        queue_->close();
    }

  private:
    std::shared_ptr<const RingQueue> queue_;
    Server server_;
};

// Serves READs that have to wait.
class ReadWorker {
  public:
    explicit ReadWorker(std::shared_ptr<State> state)
        : state_(std::move(state)),
          counts_(state_->ledger.join("read")),
          ring_reader_(policy_of(*state_), counts_) {}
    void run() {
        while (auto job = state_->workers.next()) {
            {
                const Turn turn(*counts_);
                serve(*job);
                counts_->answered_read(job->asked, job->served, job->since);
            }
            state_->workers.done(*job);
        }
    }

  private:
    void serve(ReadJob& job) {
        job.lease->learn();
        if (job.channel->is_ring()) {
            ring_reader_.serve(job, RingReader::Wait::allowed);
            return;
        }
        if (!reader_) {  // most threads never need its buffer
            reader_.emplace(policy_of(*state_), state_->windows, state_->budget, counts_);
            count_buffers(*state_, *reader_);
        }
        job.served = reader_->serve(*job.channel, job.unique, job.request, *job.lease);
    }

    std::shared_ptr<State> state_;
    std::shared_ptr<ThreadCounts> counts_;
    RingReader ring_reader_;
    std::optional<Reader> reader_;
};

// Serves READDIRs that have to read a whole directory first.
class ListingWorker {
  public:
    explicit ListingWorker(std::shared_ptr<State> state)
        : state_(std::move(state)),
          counts_(state_->ledger.join("list")),
          context_{*state_, *counts_, {}} {
        context_.lists = ops::Context::Lists::all;
    }
    void run() {
        while (auto job = state_->listings.next()) {
            {
                const Turn turn(*counts_);
                const auto body = std::span(job->message).subspan(sizeof job->header);
                if (!ops::serve(context_, {job->channel, job->header, body})) {
                    // Revoked meanwhile, and control knows nothing of a handle of the data path.
                    job->channel->reply_error(job->header.unique, -ESTALE);
                }
                const auto& header = job->header;
                counts_->answered({header.nodeid, header.pid, header.uid}, header.opcode,
                                  job->since);
            }
            state_->listings.done(*job);
        }
    }

  private:
    std::shared_ptr<State> state_;
    std::shared_ptr<ThreadCounts> counts_;
    ops::Context context_;
};

// Makes calls that take long.
class CallWorker {
  public:
    explicit CallWorker(std::shared_ptr<State> state) : state_(state), server_(std::move(state)) {}
    void run() {
        while (auto job = state_->calls.next()) {
            server_.take(*job);
            state_->calls.done(*job);
        }
    }

  private:
    std::shared_ptr<State> state_;
    Server server_;
};

// Drops what was kept for too long, and closes files whose filesystem may be slow.
class Tidier {
  public:
    explicit Tidier(std::shared_ptr<State> state) : state_(std::move(state)) {}
    void run() {
        while (!state_->stopping.load(std::memory_order_acquire)) {
            state_->leased_nodes.tidy();
            state_->leased_nodes.closer().close_for(kTidyEvery);
        }
    }

  private:
    static constexpr std::chrono::milliseconds kTidyEvery{500};

    std::shared_ptr<State> state_;
};

// Reads what changes on the backing filesystems.
class ChangeReader {
  public:
    explicit ChangeReader(std::shared_ptr<State> state) : state_(std::move(state)) {}
    void run() {
        if (state_->surviving->session().generation() > 0) {
            // Nobody saw the changes since the end of the process before.
            state_->coherence->recover();
        }
        state_->coherence->run();
    }

  private:
    std::shared_ptr<State> state_;
};

// Gives up leases on files that another process opens for writing.
class LeaseBreaker {
  public:
    explicit LeaseBreaker(std::shared_ptr<State> state) : state_(std::move(state)) {
        state_->coherence->read_leases().attach();
    }
    void run() { state_->coherence->read_leases().run(); }

  private:
    std::shared_ptr<State> state_;
};

// Pushes changes to the kernel.
class Pusher {
  public:
    Pusher(std::shared_ptr<State> state, std::size_t number)
        : state_(std::move(state)), number_(number) {}
    void run() { state_->coherence->pushers().run(number_); }

  private:
    std::shared_ptr<State> state_;
    std::size_t number_;
};

// Decides how the threads of the rings are scheduled.
class Watcher {
  public:
    explicit Watcher(std::shared_ptr<State> state) : state_(std::move(state)) {}
    void run() { state_->scheduling.watch(); }

  private:
    std::shared_ptr<State> state_;
};

template <typename Work, typename... Arguments>
ThreadPlan plan(const char* name, Arguments... arguments) {
    return {name, [=] {
                const auto work = std::make_shared<Work>(arguments...);
                return [work] { work->run(); };
            }};
}

}  // namespace

unsigned serving_threads(unsigned wanted) noexcept {
    return wanted > 0 ? wanted : std::clamp(std::thread::hardware_concurrency(), 2U, 8U);
}

std::vector<ThreadPlan> threads_of(const std::shared_ptr<State>& state,
                                   std::span<const std::shared_ptr<const DeviceChannel>> channels) {
    std::vector<ThreadPlan> plans;
    if (state->rings) {
        for (const auto& queue : state->rings->queues()) {
            plans.push_back(plan<RingThread>("zcfuse-ring", state, queue));
        }
        plans.push_back(plan<Watcher>("zcfuse-watch", state));
    }
    for (std::size_t i = 0; i < state->workers.threads(); ++i) {
        plans.push_back(plan<ReadWorker>("zcfuse-read", state));
    }
    for (std::size_t i = 0; i < state->listings.threads(); ++i) {
        plans.push_back(plan<ListingWorker>("zcfuse-list", state));
    }
    for (std::size_t i = 0; state->config.shared && i < state->calls.threads(); ++i) {
        plans.push_back(plan<CallWorker>("zcfuse-call", state));
    }
    if (state->coherence) {
        for (std::size_t i = 0; i < Pushers::kQueues; ++i) {
            plans.push_back(plan<Pusher>("zcfuse-push", state, i));
        }
        plans.push_back(plan<ChangeReader>("zcfuse-changes", state));
        plans.push_back(plan<LeaseBreaker>("zcfuse-leases", state));
    }
    plans.push_back(plan<Relay>("zcfuse-relay", state));
    plans.push_back(plan<Tidier>("zcfuse-tidy", state));
    plans.push_back(plan<NotifierThread>("zcfuse-notify", state, channels.front()));
    for (const auto& channel : channels) {
        plans.push_back(plan<Server>("zcfuse-serve", state, channel));
    }
    return plans;
}

std::thread started(const std::shared_ptr<State>& state, ThreadPlan plan,
                    const std::shared_ptr<std::latch>& ready) {
    const char* const name = plan.name;
    ++state->running;
    try {
        std::thread thread([state, ready, make = std::move(plan.make)] {
            be_deaf_to_signals();
            try {
                const auto work = make();
                ready->count_down();
                work();
            } catch (const std::exception& error) {
                state->ending.failed(error.what(), 0);
                ready->count_down();
            }
            --state->running;
        });
        ::pthread_setname_np(thread.native_handle(), name);
        return thread;
    } catch (...) {
        --state->running;
        throw;
    }
}

void ask_to_end(State& state) {
    state.stopping.store(true, std::memory_order_release);
    state.notifier.stop();
    state.upcalls.wake();
    state.workers.stop();
    state.listings.stop();
    state.calls.stop();
    state.leased_nodes.closer().stop();
    state.scheduling.stop();
    if (state.coherence) {
        state.coherence->stop();
    }
    if (state.rings) {
        state.rings->gate().shut();
    }
}

void allow_nudges() {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(nudge_signal(), &action, nullptr);
}

void nudge(std::thread& thread) {
    ::pthread_kill(thread.native_handle(), nudge_signal());
}

}  // namespace zc
