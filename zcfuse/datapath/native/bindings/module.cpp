// The only place that sees Python. Each function releases the GIL for as long as it is in C++, and
// takes it back only to build its result; the data path's threads never hold it.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <tuple>

#include "serve/datapath.hpp"
#include "sys/faults.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// Of RLIMIT_NOFILE, for archives; members of those beyond it are opened by control.
constexpr std::size_t kArchiveShare = 8;

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
    transport["reason"] = withdrawn ? rings->gate().why_withdrawn()
                          : rings && gate == zc::RingGate::State::unused
                              ? "the kernel offers no io_uring, or no passthrough to go with it"
                              : of.reason;
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
    transport["reads_to_workers"] = path.state().workers.pushed();
    transport["threads"] = of.threads;
    transport["cloned"] = of.cloned;
    transport["clone_error"] = of.clone_error;
    transport["pipe_slots"] = path.state().pipe_slots.load();
    return transport;
}

nb::dict directories_of(const zc::State& state,
                        const std::vector<std::shared_ptr<zc::ThreadCounts>>& threads) {
    const auto stats = state.mirrors.statistics();
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
    directories["open_files"] = stats.files.used;
    directories["kept_files"] = stats.files.kept;
    directories["reopened"] = backing_hits;
    const auto catalogues = state.catalogues.statistics();
    directories["archives"] = catalogues.leased;
    directories["archive_bytes"] = catalogues.bytes;
    return directories;
}

// The node that shows the catalogue, and the member, which is known by its inode number.
std::vector<zc::Mirrors::Description> described_member(zc::State& state, std::uint64_t nodeid) {
    const auto place = state.catalogues.find(nodeid);
    zc::abi::Attr attributes{};
    if (!place || place->catalogue->attributes(place->node, attributes) != 0) {
        return {};
    }
    state.catalogues.describe(nodeid);
    const zc::Identity identity{attributes.ino, 0, 0, attributes.mode & S_IFMT};
    return {{place->root, "", 0, {}, 0}, {nodeid, "", 0, identity, 0}};
}

std::string bytes_of(const nb::bytes& bytes) {
    return {bytes.c_str(), bytes.size()};
}

void lease_catalogue(zc::DataPath& path, std::uint64_t nodeid,
                     const std::array<nb::bytes, 4>& sections, int fd,
                     std::tuple<std::uint64_t, std::int64_t, std::int64_t> version,
                     std::uint64_t first_ino, std::optional<std::uint32_t> uid,
                     std::optional<std::uint32_t> gid) {
    zc::Catalogue::Sections copied{bytes_of(sections[0]), bytes_of(sections[1]),
                                   bytes_of(sections[2]), bytes_of(sections[3])};
    const nb::gil_scoped_release released;
    zc::sys::UniqueFd file;
    auto& catalogues = path.state().catalogues;
    if (fd >= 0 && catalogues.statistics().files < zc::sys::descriptor_limit() / kArchiveShare) {
        if (const int error = zc::sys::dup_cloexec(fd, file); error < 0) {
            throw std::system_error(-error, std::generic_category(), "copying a descriptor");
        }
    }
    const auto& [size, mtime_ns, ctime_ns] = version;
    catalogues.lease(nodeid,
                     std::make_shared<const zc::Catalogue>(
                         std::move(copied), zc::Catalogue::Version{size, mtime_ns, ctime_ns},
                         zc::Catalogue::Shown{first_ino, uid, gid}, std::move(file)));
}

// [(nodeid, name, device, inode number, time of birth, type, layer)], the leased directory first.
nb::list describe(zc::DataPath& path, std::uint64_t nodeid) {
    std::vector<zc::Mirrors::Description> chain;
    {
        const nb::gil_scoped_release released;
        chain = zc::is_catalogued(nodeid) ? described_member(path.state(), nodeid)
                                          : path.state().mirrors.describe(nodeid);
    }
    nb::list result;
    for (const auto& one : chain) {
        result.append(nb::make_tuple(one.nodeid, nb::bytes(one.name.data(), one.name.size()),
                                     one.device, one.identity.ino, one.identity.birth,
                                     one.identity.type, one.layer));
    }
    return result;
}

// [(nodeid, opens, reads, bytes, leased directory above it, path from there)]
nb::list hot_files(const zc::DataPath& path, std::size_t most) {
    const auto& state = path.state();
    std::vector<std::pair<zc::Ledger::HotFile, zc::Mirrors::Place>> files;
    {
        const nb::gil_scoped_release released;
        for (const auto& file : state.ledger.hot_files(most)) {
            auto place = zc::is_own(file.nodeid) ? state.mirrors.place_of(file.nodeid)
                                                 : zc::Mirrors::Place{file.nodeid, {}};
            files.emplace_back(file, place.value_or(zc::Mirrors::Place{}));
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
    pool["buffers"] = path.transport().threads;
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
    result["notifications"] = state.notifier.sent();
    result["reads_waited"] = state.reads.waited();
    result["interrupts"] = state.interrupts.load();
    result["malformed"] = malformed;
    result["paths"] = paths_of(threads);
    result["latency"] = latencies_of(threads);
    result["opens"] = to_dict(state.ledger.opens());
    result["fallbacks"] = to_dict(state.ledger.fallbacks());
    // Those that nobody has open are kept, but are no business of anybody's.
    const auto kept = state.mirrors.statistics().files.kept;
    result["leases"] = state.leases.size() - std::min(state.leases.size(), kept);
    result["directories"] = directories_of(state, threads);
    result["pool"] = pool;
    result["windows"] = windows_of(state.windows->stats());
    result["lock_budget"] = nb::make_tuple(state.budget->used(), state.budget->limit());
    result["threads"] = threads_of(state, threads);
    result["uptime_ns"] = path.uptime().count();
    return result;
}

using Extents = std::vector<std::tuple<int, std::uint64_t, std::uint64_t>>;

std::vector<zc::InstallExtent> converted(const Extents& extents) {
    std::vector<zc::InstallExtent> result;
    result.reserve(extents.size());
    for (const auto& [fd, offset, length] : extents) {
        result.push_back({fd, offset, length});
    }
    return result;
}

std::pair<std::string, std::string> install(zc::DataPath& path, std::uint64_t nodeid,
                                            const Extents& extents, const std::string& path_name) {
    return path.install(nodeid, converted(extents), path_name);
}

std::pair<std::string, std::string> would_serve(zc::DataPath& path, const Extents& extents,
                                                const std::string& path_name) {
    return path.would_serve(converted(extents), path_name);
}

int granted_buffer(int fd, std::size_t wanted) {
    const int bytes = static_cast<int>(wanted);
    zc::sys::set_socket_buffer(fd, SO_SNDBUF, SO_SNDBUFFORCE, bytes);
    int granted = 0;
    socklen_t size = sizeof granted;
    if (::getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &granted, &size) < 0) {
        return 0;
    }
    return granted;
}

// A message must be smaller than the sender's buffer less 32 bytes (Linux 6.18,
// unix_dgram_sendmsg); SO_SNDBUF reads back the doubled value that this is checked against
// (socket(7)).
std::tuple<int, int, std::size_t> upcall_pair(std::size_t message_bytes) {
    std::array<int, 2> ends{-1, -1};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) < 0) {
        throw std::system_error(errno, std::generic_category(), "socketpair for the upcalls");
    }
    const int granted =
        std::min(granted_buffer(ends[0], message_bytes), granted_buffer(ends[1], message_bytes));
    return {ends[0], ends[1], static_cast<std::size_t>(std::max(granted - 32, 0))};
}

void translate(const std::exception_ptr& thrown, void*) {
    try {
        std::rethrow_exception(thrown);
    } catch (const std::system_error& error) {
        PyErr_SetObject(PyExc_OSError, nb::make_tuple(error.code().value(), error.what()).ptr());
    }
}

void bind_config(nb::module_& module) {
    nb::class_<zc::Config>(module, "Config")
        .def(nb::init<>())
        .def_rw("path", &zc::Config::path)
        .def_rw("threads", &zc::Config::threads)
        .def_rw("stack_depth", &zc::Config::stack_depth)
        .def_rw("lock_budget", &zc::Config::lock_budget)
        .def_rw("prefault", &zc::Config::prefault)
        .def_rw("read_only", &zc::Config::read_only)
        .def_rw("upcall_timeout", &zc::Config::upcall_timeout)
        .def_rw("message_bytes", &zc::Config::message_bytes)
        .def_rw("cache_timeout", &zc::Config::cache_timeout)
        .def_rw("immutable", &zc::Config::immutable)
        .def_rw("splice_min", &zc::Config::splice_min)
        .def_rw("transport", &zc::Config::transport)
        .def_rw("passthrough_permitted", &zc::Config::passthrough_permitted)
        .def_rw("source_stacked", &zc::Config::source_stacked)
        .def_rw("source_in_parts", &zc::Config::source_in_parts)
        .def_rw("ring_depth", &zc::Config::ring_depth);
}

void bind_datapath(nb::module_& module) {
    using zc::DataPath;
    using Released = nb::call_guard<nb::gil_scoped_release>;
    nb::class_<DataPath>(module, "DataPath")
        .def(nb::init<int, int, const zc::Config&, bool>(), "channel_fd"_a, "upcall_fd"_a,
             "config"_a, nb::kw_only(), "device"_a)
        .def(
            "set_abort",
            [](DataPath& path, const std::string& abort_file, const nb::bytes& mountpoint) {
                path.set_abort(abort_file, std::string(mountpoint.c_str(), mountpoint.size()));
            },
            "abort_file"_a, "mountpoint"_a)
        .def("start", &DataPath::start, Released())
        .def("ended_fd", [](const DataPath& path) { return path.state().ending.event(); })
        .def("end_reason", [](const DataPath& path) { return path.state().ending.reason(); })
        .def("install", &install, "nodeid"_a, "extents"_a, "path"_a = "", Released())
        .def("would_serve", &would_serve, "extents"_a, "path"_a = "", Released())
        .def("serves", &DataPath::serves, "nodeid"_a, Released())
        .def(
            "take_lock_budget",
            [](DataPath& path, std::size_t bytes) { return path.state().budget->try_take(bytes); },
            "bytes"_a)
        .def(
            "give_lock_budget",
            [](DataPath& path, std::size_t bytes) { path.state().budget->give(bytes); }, "bytes"_a)
        .def(
            "lease_directory",
            [](DataPath& path, std::uint64_t nodeid, int root_fd,
               const std::vector<nb::bytes>& kept) {
                std::set<std::string, std::less<>> paths;
                for (const auto& one : kept) {
                    paths.emplace(one.c_str(), one.size());
                }
                const nb::gil_scoped_release released;
                path.state().mirrors.lease(nodeid, root_fd, std::move(paths));
            },
            "nodeid"_a, "root_fd"_a, "kept"_a = nb::make_tuple())
        .def(
            "lease_union",
            [](DataPath& path, std::uint64_t nodeid, const std::vector<int>& layer_fds,
               bool sees_trusted) {
                path.state().mirrors.lease_union(nodeid, layer_fds, sees_trusted);
            },
            "nodeid"_a, "layer_fds"_a, "sees_trusted"_a, Released())
        .def("lease_catalogue", &lease_catalogue, "nodeid"_a, "sections"_a, "fd"_a, "version"_a,
             nb::kw_only(), "first_ino"_a, "uid"_a.none(), "gid"_a.none())
        .def(
            "refuse_device",
            [](DataPath& path, std::uint32_t major, std::uint32_t minor) {
                path.state().mirrors.refuse_device(major, minor);
            },
            "major"_a, "minor"_a)
        .def("revoke_directory", &DataPath::revoke_directory, "nodeid"_a, Released())
        .def(
            "drop_directory",
            [](DataPath& path, std::uint64_t nodeid) {
                path.state().mirrors.drop(nodeid);
                path.state().catalogues.drop(nodeid);
            },
            "nodeid"_a, Released())
        .def("describe", &describe, "nodeid"_a)
        .def("revoke", &DataPath::revoke, "nodeid"_a, Released())
        .def(
            "set_ino",
            [](DataPath& path, std::uint64_t nodeid, std::uint64_t ino) {
                path.state().numbers.set(nodeid, ino);
            },
            "nodeid"_a, "ino"_a)
        .def(
            "drop_inos",
            [](DataPath& path, const std::vector<std::uint64_t>& nodeids) {
                path.state().numbers.drop(nodeids);
            },
            "nodeids"_a)
        .def("invalidate_inode", &DataPath::invalidate_inode, "nodeid"_a, "offset"_a, "length"_a,
             Released())
        .def(
            "invalidate_entry",
            [](const DataPath& path, std::uint64_t parent, const nb::bytes& name) {
                const std::string copy(name.c_str(), name.size());
                const nb::gil_scoped_release released;
                return path.invalidate_entry(parent, std::as_bytes(std::span(copy)));
            },
            "parent"_a, "name"_a)
        .def("statistics", &statistics)
        .def("hot_files", &hot_files, "most"_a)
        .def("expect_end", &DataPath::expect_end)
        .def(
            "stop", [](DataPath& path) { return path.stop(); }, Released());
}

}  // namespace

NB_MODULE(_native, module) {
    module.attr("WHOLE_FILE") = zc::kWholeFile;
    // pyfuse3 keeps the operations, and with them this, in globals that are never cleared.
    nb::set_leak_warnings(false);
    nb::register_exception_translator(translate);
    if (const char* faults = std::getenv("ZCFUSE_FAULTS"); faults != nullptr) {
        if (!zc::sys::arm_faults(faults)) {
            throw nb::value_error("ZCFUSE_FAULTS is not understood");
        }
    }
    bind_config(module);
    bind_datapath(module);
    module.def("upcall_pair", &upcall_pair, "message_bytes"_a);
    module.def(
        "arm_faults", [](const std::string& text) { return zc::sys::arm_faults(text); }, "text"_a);
}
