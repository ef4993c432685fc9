// Read leases (fcntl(2), F_SETLEASE) on open files of sources that are `strict`.
//
// The system grants such a lease while the file has no writer: no descriptor and no mapping to
// write through. Only under the lease the kernel may keep the file's size and times. A program that
// opens the file for writing or truncates it waits until this process gives the lease back, and
// that follows the push that makes the kernel ask again. The lease of a file that this process
// closes ends in the same way.
//
// Orders that leave nothing stale:
//   - holds() comes before the look whose answer may stay, and counts no lease that is ending.
//   - a lease counts as ending before its push, and is given back after it. The kernel drops an
//     answer that it asked for before the push (attr_version).
//
// A broken lease raises SIGIO in the thread of run(). One signal may stand for several leases, so
// that thread asks about each one.
//
// Threads: any. Files are closed, and pushes posted, outside of the lock, which is innermost.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

#include "serve/coherence/pushers.hpp"
#include "sys/unique_fd.hpp"

namespace zc {

class ReadLeases : public std::enable_shared_from_this<ReadLeases> {
  public:
    using File = std::shared_ptr<const sys::UniqueFd>;

    explicit ReadLeases(Pushers& pushers) : pushers_(pushers) {}
    ReadLeases(const ReadLeases&) = delete;
    ReadLeases& operator=(const ReadLeases&) = delete;
    ~ReadLeases() = default;

    // Returns the same file. take() may lease it until the last use of what this returns.
    File enrol(std::uint64_t nodeid, File file);
    // Leases a file of a node, unless one is leased. 0, or -errno: EAGAIN while a writer exists.
    int take(std::uint64_t nodeid);
    bool holds(std::uint64_t nodeid) const;

    // Gives up leases that are broken, until stop(). A signal must interrupt the thread then.
    void run();
    // Gives up all leases, and takes no more.
    void stop();

    struct Statistics {
        std::size_t held = 0;
        std::uint64_t broken = 0;  // because another process opened the file for writing
    };
    Statistics statistics() const;

  private:
    enum class State : std::uint8_t { none, held, ending };
    struct Lease {
        std::uint64_t nodeid = 0;
        File file;
        State state = State::none;
    };
    using Shared = std::shared_ptr<Lease>;
    class Use;

    void give_up_broken();
    void end(const Shared& lease);
    void give_back_after_push(Shared lease);

    Pushers& pushers_;
    mutable std::shared_mutex lock_;
    std::unordered_multimap<std::uint64_t, Shared> leases_;  // by nodeid
    pid_t thread_ = 0;                                       // of run(); 0: none runs
    std::atomic<bool> stopping_{false};
    std::atomic<std::uint64_t> broken_{0};
};

}  // namespace zc
