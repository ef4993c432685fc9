// The data path's counters. Each thread writes its private counters (relaxed, one writer each, no
// shared cache line); statistics() adds them up in any thread. Bytes and copies are sums of system
// calls' return values, never a constant per path.
//
// A request's latency is the daemon's part: from reading it off the channel, or finding it in a
// ring entry, until its reply was written. The thread that replies counts it, once per request,
// even if another thread took the request.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "abi/fuse.hpp"
#include "serve/hot_files.hpp"
#include "serve/latency.hpp"
#include "serve/reasons.hpp"
#include "serve/trace.hpp"

namespace zc {

enum class Path : std::uint8_t { upcall, pool, mmap, splice, count_ };
std::string_view path_name(Path path) noexcept;

struct PathCounts {
    Count requests;
    Count bytes;       // of payload that the kernel took
    Count copied_in;   // bytes that system calls copied into this process's memory
    Count copied_out;  // bytes that system calls copied out of it
    Count calls;       // system calls made to serve
    Count short_calls;
    Count errors;   // requests that were answered with an errno
    Count refused;  // replies that the kernel did not take (interrupted, aborted)
    Latency latency;
};

// By which path a READ was answered, and with how much that the kernel took.
struct Served {
    Path path = Path::pool;
    std::uint64_t bytes = 0;
};

Way way_of(Path path) noexcept;

// The counters of one thread. Only that thread adds.
struct alignas(64) ThreadCounts {
    explicit ThreadCounts(std::size_t hot_places = HotFiles::kPlaces, HotFiles::IsOpen is_open = {})
        : files(hot_places, std::move(is_open)) {}

    std::string role;
    pid_t tid = 0;
    std::array<Count, abi::kOpcodes> requests;
    std::array<Count, abi::kOpcodes> upcalls;
    std::array<Latency, abi::kOpcodes> latency;
    HotFiles files;
    Trace trace;
    std::array<PathCounts, static_cast<std::size_t>(Path::count_)> paths;
    std::array<Count, kReasons> reasons;
    Count malformed;
    Count directory_hits;    // look-ups of a directory's descriptor that was there
    Count directory_misses;  // and that had to be opened
    Count backing_hits;      // opens of a file whose lease was there
    // Odd while a request is at hand: its reply may be out before it is counted.
    std::atomic<std::uint64_t> turns{0};

    PathCounts& path(Path which) noexcept { return paths[static_cast<std::size_t>(which)]; }
    // A request that was taken at `since` is dealt with now.
    Clock::duration answered(const Asked& asked, std::uint32_t opcode,
                             Clock::time_point since) noexcept {
        const auto taken = Clock::now() - since;
        latency[slot(opcode)].add(taken);
        if (trace.on()) {
            trace.note(asked, opcode, since, taken);
        }
        return taken;
    }
    // The same of a READ of a file.
    void answered_read(const Asked& asked, const Served& served, Clock::time_point since) noexcept {
        constexpr auto opcode = static_cast<std::uint32_t>(abi::Opcode::read);
        const auto taken = Clock::now() - since;
        latency[slot(opcode)].add(taken);
        path(served.path).latency.add(taken);
        files.read(asked.nodeid, served.bytes);
        if (trace.on()) {
            trace.travels(way_of(served.path), served.bytes);
            trace.note(asked, opcode, since, taken);
        }
    }
    void because(Reason reason) noexcept { reasons[static_cast<std::size_t>(reason)].add(); }
    static std::size_t slot(std::uint32_t opcode) noexcept {
        return opcode < abi::kOpcodes ? opcode : 0;
    }
};

// A thread is at a request for as long as this lives.
class Turn {
  public:
    explicit Turn(ThreadCounts& counts) noexcept : counts_(counts) { pass(); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn() { pass(); }

  private:
    void pass() noexcept {
        counts_.turns.store(counts_.turns.load(std::memory_order_relaxed) + 1,
                            std::memory_order_release);
    }
    ThreadCounts& counts_;
};

class Ledger {
  public:
    // `hot_places`: closed files that each thread counts by name.
    explicit Ledger(std::size_t hot_places = HotFiles::kPlaces, HotFiles::IsOpen is_open = {})
        : hot_places_(hot_places), is_open_(std::move(is_open)) {}

    // The counters of the calling thread, which stay readable after it ended.
    std::shared_ptr<ThreadCounts> join(std::string role);
    // The outcome of one open: how the file will be served, and why not better.
    void opened(std::string_view mode, const Cause& cause);

    // Waits until the requests that threads are at now have been counted, 5 ms at most: what a
    // client has been answered is then in the counts that are read next.
    void settle() const;

    // Has every thread note what it answers from now on, up to `most` bytes of events between two
    // drains; 0: no more. Throws std::bad_alloc.
    void trace(std::size_t most);
    // Appends each thread's events since the last drain. Returns how many events were lost.
    std::uint64_t drain(std::vector<Events>& into) const;

    std::vector<std::shared_ptr<ThreadCounts>> threads() const;
    std::map<std::string, std::uint64_t> opens() const;
    // The files that were asked for most: `most` by requests, and as many by bytes. In no order.
    struct HotFile {
        std::uint64_t nodeid;
        FileUse use;
    };
    std::vector<HotFile> hot_files(std::size_t most) const;
    // By Cause::text().
    std::map<std::string, std::uint64_t> fallbacks() const;

  private:
    mutable std::mutex lock_;  // innermost: nothing is called under it
    std::vector<std::shared_ptr<ThreadCounts>> threads_;
    const std::size_t hot_places_;
    const HotFiles::IsOpen is_open_;
    std::size_t traced_ = 0;
    std::map<std::string, std::uint64_t> opens_;
    std::map<std::string, std::uint64_t> open_causes_;
};

}  // namespace zc
