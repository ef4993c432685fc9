// The state that the threads of one data path share. Each thread holds a shared_ptr, so that a
// thread stuck in a system call at the end cannot outlive the state.
//
// Lock order: every lock below is innermost, and a thread holds one at a time. The locks of nodes
// are the exception (nodes/leased_nodes.hpp, nodes/open_files.hpp).
#pragma once

#include <atomic>
#include <memory>

#include "serve/backings.hpp"
#include "serve/calls.hpp"
#include "serve/coherence/watcher.hpp"
#include "serve/config.hpp"
#include "serve/early_interrupts.hpp"
#include "serve/first_opens.hpp"
#include "serve/inode_numbers.hpp"
#include "serve/lease.hpp"
#include "serve/ledger.hpp"
#include "serve/lock_budget.hpp"
#include "serve/negotiation.hpp"
#include "serve/nodes/leased_nodes.hpp"
#include "serve/read_job.hpp"
#include "serve/scheduling.hpp"
#include "serve/seeks.hpp"
#include "serve/surviving/surviving_state.hpp"
#include "serve/suspects.hpp"
#include "serve/user_queue.hpp"
#include "serve/windows.hpp"
#include "transport/channel.hpp"
#include "transport/ending.hpp"
#include "transport/notifier.hpp"
#include "transport/rings.hpp"
#include "transport/upcalls.hpp"

namespace zc {

struct State {
    State(const Config& settings, std::shared_ptr<SurvivingState> memory,
          sys::UniqueFd upcall_socket, Limits limits, unsigned threads)
        : config(settings),
          surviving(std::move(memory)),
          mode(parse_mode(settings.path)),
          ledger(settings.hot_files,
                 [this](std::uint64_t nodeid) { return leases.find(nodeid) != nullptr; }),
          leased_nodes(leases, settings, *surviving),
          negotiation(settings, limits, surviving->session()),
          backings(mode, negotiation, surviving->handles()),
          coherence(settings.push ? std::make_unique<Coherence>(leased_nodes, negotiation,
                                                                settings.fence_directory)
                                  : nullptr),
          upcalls(std::move(upcall_socket), settings.control_tasks,
                  settings.shared ? settings.ring_depth : 0),
          read_slots(threads),
          workers(settings),
          listings(settings),
          calls(settings) {}

    // Whether a successor may take over.
    bool has_holder() const noexcept { return suspects != nullptr; }

    const Config config;
    const std::shared_ptr<SurvivingState> surviving;  // outlives the process if others hold it
    const Mode mode;
    Ending ending;
    Ledger ledger;
    LeaseTable leases;
    LeasedNodes leased_nodes;
    InodeNumbers numbers;
    Negotiation negotiation;
    Backings backings;
    std::unique_ptr<Coherence> coherence;  // nullptr: what is told holds for a time
    Upcalls upcalls;
    ReadSlots read_slots;
    ReadWorkers workers;
    ListingQueue listings;
    CallQueue calls;
    Slowness slowness;
    EarlyInterrupts early_interrupts;
    FirstOpens first_opens;
    Scheduling scheduling;
    WaitingSeeks seeks;
    std::shared_ptr<Rings> rings;  // nullptr: /dev/fuse alone
    Notifier notifier;
    std::unique_ptr<Suspects> suspects;  // nullptr: no successor asks for them
    std::shared_ptr<LockBudget> budget;
    std::shared_ptr<WindowCache> windows;
    std::atomic<bool> stopping{false};
    std::atomic<int> running{0};
    std::atomic<std::uint64_t> interrupts{0};
    std::atomic<std::uint64_t> pool_buffers{0};
    std::atomic<std::uint64_t> pool_bytes{0};
    std::atomic<std::uint64_t> pool_locked{0};
    std::atomic<std::uint64_t> pipe_slots{0};
};

}  // namespace zc
