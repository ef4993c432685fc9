// The state that the threads of one data path share. Each thread holds a shared_ptr, so that a
// thread stuck in a system call at the end cannot outlive the state.
//
// Lock order: every lock below is innermost, and a thread holds one at a time. The locks of mirrors
// are the exception (nodes/mirrors.hpp, nodes/open_files.hpp).
#pragma once

#include <atomic>
#include <memory>

#include "serve/backings.hpp"
#include "serve/coherence/watcher.hpp"
#include "serve/config.hpp"
#include "serve/inode_numbers.hpp"
#include "serve/lease.hpp"
#include "serve/ledger.hpp"
#include "serve/lock_budget.hpp"
#include "serve/negotiation.hpp"
#include "serve/nodes/mirrors.hpp"
#include "serve/read_queue.hpp"
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
          ledger(settings.hot_files),
          mirrors(leases, settings, *surviving),
          negotiation(settings, limits, surviving->session()),
          backings(mode, negotiation, surviving->handles()),
          coherence(settings.push ? std::make_unique<Coherence>(mirrors, negotiation,
                                                                settings.fence_directory)
                                  : nullptr),
          upcalls(std::move(upcall_socket), settings.control_tasks,
                  settings.shared ? settings.ring_depth : 0),
          reads(threads) {}

    const Config config;
    const std::shared_ptr<SurvivingState> surviving;  // outlives the process if others hold it
    const Mode mode;
    Ending ending;
    Ledger ledger;
    LeaseTable leases;
    Mirrors mirrors;
    InodeNumbers numbers;
    Negotiation negotiation;
    Backings backings;
    std::unique_ptr<Coherence> coherence;  // nullptr: what is told holds for a time
    Upcalls upcalls;
    ReadQueue reads;
    ReadWorkers workers;
    ListingQueue listings;
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
    std::atomic<std::uint64_t> pool_bytes{0};
    std::atomic<std::uint64_t> pool_locked{0};
    std::atomic<std::uint64_t> pipe_slots{0};
};

}  // namespace zc
