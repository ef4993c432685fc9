#include "bindings/statistics.hpp"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace nb = nanobind;

namespace zc::bindings {

namespace {

nb::dict to_dict(const std::map<std::string, std::uint64_t>& counts) {
    nb::dict result;
    for (const auto& [name, n] : counts) {
        result[name.c_str()] = n;
    }
    return result;
}

template <typename Slots>
void add_opcodes(std::map<std::string, std::uint64_t>& into, const Slots& slots) {
    for (std::size_t opcode = 0; opcode < slots.size(); ++opcode) {
        if (const auto n = slots[opcode].get(); n > 0) {
            into[std::string(zc::abi::opcode_name(static_cast<std::uint32_t>(opcode)))] += n;
        }
    }
}

nb::dict init_of(const zc::Negotiation::Outcome& outcome) {
    nb::list flags;
    for (unsigned bit = 0; bit < 64; ++bit) {
        if ((outcome.flags >> bit & 1) != 0) {
            flags.append(std::string(zc::abi::init_flag_name(bit)));
        }
    }
    nb::dict init;
    init["done"] = outcome.done;
    init["minor"] = outcome.minor;
    init["flags"] = flags;
    init["max_pages"] = outcome.max_pages;
    init["max_readahead"] = outcome.max_readahead;
    init["max_background"] = outcome.max_background;
    init["max_write"] = outcome.max_write;
    init["passthrough"] = outcome.passthrough();
    init["stack_depth"] = outcome.max_stack_depth;
    init["zero_message_opens"] = outcome.zero_message_opens();
    return init;
}

nb::dict paths_of(const std::vector<std::shared_ptr<zc::ThreadCounts>>& threads) {
    nb::dict paths;
    for (std::size_t i = 0; i < static_cast<std::size_t>(zc::Path::count_); ++i) {
        std::map<std::string, std::uint64_t> sum;
        for (const auto& thread : threads) {
            const auto& counts = thread->paths[i];
            sum["requests"] += counts.requests.get();
            sum["bytes"] += counts.bytes.get();
            sum["copied_in"] += counts.copied_in.get();
            sum["copied_out"] += counts.copied_out.get();
            sum["calls"] += counts.calls.get();
            sum["short"] += counts.short_calls.get();
            sum["errors"] += counts.errors.get();
            sum["refused"] += counts.refused.get();
        }
        paths[std::string(zc::path_name(static_cast<zc::Path>(i))).c_str()] = to_dict(sum);
    }
    return paths;
}

nb::dict latency_of(const zc::Latency::Total& total) {
    nb::list buckets;
    for (std::size_t i = 0; i < total.buckets.size(); ++i) {
        if (total.buckets[i] > 0) {
            buckets.append(
                nb::make_tuple(zc::Latency::begin_of(i), zc::Latency::end_of(i), total.buckets[i]));
        }
    }
    nb::dict latency;
    latency["count"] = total.count;
    latency["sum_ns"] = total.sum;
    latency["max_ns"] = total.longest;
    latency["buckets"] = buckets;
    return latency;
}

// By operation, of all threads or of those with a role.
nb::dict operation_latencies(const std::vector<std::shared_ptr<zc::ThreadCounts>>& threads,
                             std::string_view role = {}) {
    std::map<std::string, zc::Latency::Total> totals;
    for (const auto& thread : threads) {
        for (std::size_t opcode = 0; opcode < zc::abi::kOpcodes; ++opcode) {
            if ((role.empty() || thread->role == role) && thread->latency[opcode].any()) {
                const auto name = zc::abi::opcode_name(static_cast<std::uint32_t>(opcode));
                thread->latency[opcode].add_to(totals[std::string(name)]);
            }
        }
    }
    nb::dict latencies;
    for (const auto& [name, total] : totals) {
        latencies[name.c_str()] = latency_of(total);
    }
    return latencies;
}

nb::dict path_latencies(const std::vector<std::shared_ptr<zc::ThreadCounts>>& threads) {
    nb::dict latencies;
    for (std::size_t i = 0; i < static_cast<std::size_t>(zc::Path::count_); ++i) {
        zc::Latency::Total total;
        for (const auto& thread : threads) {
            thread->paths[i].latency.add_to(total);
        }
        if (total.count > 0) {
            latencies[std::string(zc::path_name(static_cast<zc::Path>(i))).c_str()] =
                latency_of(total);
        }
    }
    return latencies;
}

nb::dict latencies_of(const std::vector<std::shared_ptr<zc::ThreadCounts>>& threads) {
    nb::dict latency;
    latency["operations"] = operation_latencies(threads);
    latency["upcalls"] = operation_latencies(threads, "relay");
    latency["paths"] = path_latencies(threads);
    return latency;
}

nb::dict windows_of(const zc::WindowStats& stats) {
    nb::dict windows;
    windows["count"] = stats.count;
    windows["bytes"] = stats.bytes;
    windows["locked"] = stats.locked;
    windows["hits"] = stats.hits;
    windows["misses"] = stats.misses;
    windows["ahead"] = stats.ahead;
    windows["evictions"] = stats.evictions;
    windows["unlocked"] = stats.unlocked;
    windows["unpopulated"] = stats.unpopulated;
    return windows;
}

nb::list threads_of(const zc::State& state,
                    const std::vector<std::shared_ptr<zc::ThreadCounts>>& threads) {
    nb::list result;
    const auto add = [&result](const std::string& role, pid_t tid) {
        nb::dict thread;
        thread["role"] = role;
        thread["tid"] = tid;
        result.append(thread);
    };
    for (const auto& thread : threads) {
        add(thread->role, thread->tid);
    }
    if (const pid_t tid = state.windows->prefault_tid(); tid != 0) {
        add("prefault", tid);
    }
    return result;
}

nb::dict transport_of(const zc::DataPath& path) {
    const auto& of = path.transport();
    nb::dict transport;
    const auto& rings = path.state().rings;
    const auto gate = rings ? rings->gate().state() : zc::RingGate::State::unused;
    const bool up = gate == zc::RingGate::State::up;
    transport["kind"] = !of.device ? "socket" : up ? "uring" : "dev";
    const bool withdrawn = gate == zc::RingGate::State::withdrawn;
    transport["settled"] = up || withdrawn || gate == zc::RingGate::State::unused;
    const auto cause = withdrawn ? zc::Cause{zc::Reason::ring_failed, rings->gate().why_withdrawn()}
                       : rings && gate == zc::RingGate::State::unused
                           ? zc::Cause{zc::Reason::ring_not_offered}
                           : of.cause;
    transport["reason"] = cause.text();
    const auto counts = up ? rings->counts() : zc::RingCounts{};
    transport["queues"] = up ? rings->queues().size() : 0;
    transport["depth"] = up ? rings->depth() : 0;
    transport["entries_busy"] = counts.busy;
    transport["queue_full"] = counts.full;
    transport["waits"] = counts.waited;
    transport["handed_over"] = counts.handed;
    transport["ring_requests"] = counts.requests;
    transport["bytes"] = counts.bytes;
    transport["locked"] = up ? rings->locked_bytes() : 0;
    transport["entries_refused"] = counts.refused;
    transport["unbound"] = counts.unbound;
    const auto scheduling = path.state().scheduling.statistics();
    transport["sched_idle"] = scheduling.idle;
    transport["sched_idle_chosen"] = scheduling.chosen;
    transport["sched_idle_late"] = scheduling.late;
    transport["sched_idle_refused"] = up ? scheduling.reason : "";
    transport["threads"] = of.threads;
    transport["cloned"] = of.cloned;
    transport["clone_error"] = of.clone_error;
    transport["pipe_slots"] = path.state().pipe_slots.load();
    return transport;
}

nb::dict directories_of(const zc::State& state,
                        const std::vector<std::shared_ptr<zc::ThreadCounts>>& threads) {
    const auto stats = state.leased_nodes.statistics();
    std::uint64_t hits = 0;
    std::uint64_t misses = 0;
    std::uint64_t backing_hits = 0;
    for (const auto& thread : threads) {
        hits += thread->directory_hits.get();
        misses += thread->directory_misses.get();
        backing_hits += thread->backing_hits.get();
    }
    nb::dict directories;
    directories["leased"] = stats.leased;
    directories["nodes"] = stats.nodes;
    directories["node_bytes"] = stats.node_bytes;
    directories["descriptors"] = stats.directories;
    directories["descriptor_limit"] = stats.directory_limit;
    directories["hits"] = hits;
    directories["misses"] = misses;
    directories["listings"] = stats.listings;
    directories["snapshots"] = stats.snapshots.count;
    directories["snapshot_bytes"] = stats.snapshots.bytes;
    directories["snapshots_made"] = stats.snapshots.made;
    directories["snapshots_shared"] = stats.snapshots.shared;
    directories["snapshots_refused"] = stats.snapshots.refused;
    directories["listings_waited"] = state.listings.pushed();
    directories["open_files"] = stats.files.used;
    directories["kept_files"] = stats.files.kept;
    directories["reopened"] = backing_hits;
    directories["entries"] = stats.entries;
    directories["entry_bytes"] = stats.entry_bytes;
    directories["archives"] = stats.indexes;
    directories["archive_bytes"] = stats.index_bytes;
    return directories;
}

nb::object coherence_of(const zc::State& state) {
    if (!state.coherence) {
        return nb::none();
    }
    const auto stats = state.coherence->statistics();
    nb::dict coherence;
    coherence["filesystems"] = stats.filesystems;
    coherence["directories"] = stats.directories;
    coherence["events"] = stats.events;
    coherence["unknown"] = stats.unknown;
    coherence["coalesced"] = stats.coalesced;
    coherence["overflows"] = stats.overflows;
    coherence["pushes"] = stats.pushed.pushes;
    coherence["epochs"] = stats.pushed.epochs;
    coherence["left_out"] = stats.pushed.left_out;
    coherence["longest_queue"] = stats.pushed.longest_queue;
    coherence["latency_sum_ns"] = stats.pushed.latency_sum_ns;
    coherence["latency_worst_ns"] = stats.pushed.latency_worst_ns;
    coherence["read_leases"] = stats.leases.held;
    coherence["broken_leases"] = stats.leases.broken;
    coherence["schedule_errno"] = -stats.schedule_error;
    nb::dict refused;
    for (std::size_t i = 1; i < stats.refused.size(); ++i) {
        if (stats.refused.at(i) > 0) {
            const auto code = zc::code_of(static_cast<zc::Reason>(i));
            refused[std::string(code).c_str()] = stats.refused.at(i);
        }
    }
    coherence["refused"] = refused;
    return coherence;
}

}  // namespace

// [(nodeid, opens, reads, bytes, leased directory above it, path from there)]
nb::list hot_files(const zc::DataPath& path, std::size_t most) {
    const auto& state = path.state();
    std::vector<std::pair<zc::Ledger::HotFile, zc::LeasedNodes::Path>> files;
    {
        const nb::gil_scoped_release released;
        state.ledger.settle();
        for (const auto& file : state.ledger.hot_files(most)) {
            auto place = zc::is_own(file.nodeid) ? state.leased_nodes.place_of(file.nodeid)
                                                 : zc::LeasedNodes::Path{file.nodeid, {}};
            files.emplace_back(file, place.value_or(zc::LeasedNodes::Path{}));
        }
    }
    nb::list result;
    for (const auto& [file, place] : files) {
        result.append(nb::make_tuple(file.nodeid, file.use.opens, file.use.reads, file.use.bytes,
                                     place.root, nb::bytes(place.path.data(), place.path.size())));
    }
    return result;
}

nb::dict statistics(const zc::DataPath& path) {
    const auto& state = path.state();
    {
        const nb::gil_scoped_release released;
        state.ledger.settle();
    }
    const auto threads = state.ledger.threads();
    std::map<std::string, std::uint64_t> requests;
    std::map<std::string, std::uint64_t> upcalls;
    std::uint64_t malformed = 0;
    for (const auto& thread : threads) {
        add_opcodes(requests, thread->requests);
        add_opcodes(upcalls, thread->upcalls);
        malformed += thread->malformed.get();
    }
    const auto out = state.upcalls.statistics();
    nb::dict pool;
    pool["buffers"] = state.pool_buffers.load();
    pool["bytes"] = state.pool_bytes.load();
    pool["locked"] = state.pool_locked.load();
    nb::dict result;
    result["transport"] = transport_of(path);
    result["init"] = init_of(state.negotiation.outcome());
    result["requests"] = to_dict(requests);
    result["upcalls"] = to_dict(upcalls);
    result["upcalls_out"] = out.out;
    result["upcalls_overflow"] = out.overflow_peak;
    result["upcalls_given_up"] = out.given_up;
    result["upcalls_late"] = out.late;
    result["upcalls_waiting"] = out.waiting;
    result["notifications"] = state.notifier.sent();
    result["reads_waited"] = state.workers.pushed();
    result["interrupts"] = state.interrupts.load();
    result["malformed"] = malformed;
    result["paths"] = paths_of(threads);
    result["latency"] = latencies_of(threads);
    result["opens"] = to_dict(state.ledger.opens());
    auto fallbacks = state.ledger.fallbacks();
    if (out.waited > 0) {
        fallbacks[std::string(zc::code_of(zc::Reason::upcall_waited))] = out.waited;
    }
    if (out.refused > 0) {
        fallbacks[std::string(zc::code_of(zc::Reason::upcall_refused))] = out.refused;
    }
    result["fallbacks"] = to_dict(fallbacks);
    // Leases of files that no client has open are kept for reuse and not reported.
    const auto kept = state.leased_nodes.statistics().files.kept;
    result["leases"] = state.leases.size() - std::min(state.leases.size(), kept);
    result["directories"] = directories_of(state, threads);
    result["coherence"] = coherence_of(state);
    result["pool"] = pool;
    result["windows"] = windows_of(state.windows->stats());
    result["lock_budget"] = nb::make_tuple(state.budget->used(), state.budget->limit());
    result["threads"] = threads_of(state, threads);
    result["uptime_ns"] = path.uptime().count();
    return result;
}

}  // namespace zc::bindings
