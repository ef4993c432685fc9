// Read leases (fcntl(2), F_SETLEASE) on open files of sources that are `strict`.
//
// The system grants such a lease while the file has no writer: no descriptor and no mapping to
// write through. Only under the lease the kernel may keep the file's size and times. A program that
// opens the file for writing or truncates it waits for the end of the lease. This process first
// pushes, so that the kernel asks again, and then gives the lease back. It does the same before it
// closes the file.
//
// A lease belongs to an open file (the system's, not a descriptor) and ends with its last close. So
// nothing that outlives this process may have that open file: see Backings::Keeps.
//
// Orders that leave nothing stale:
//   - holds() comes before the look whose answer may stay, and counts no lease that is ending.
//   - a lease counts as ending before its push, and is given back after it. The kernel drops an
//     answer that it asked for before the push (attr_version).
//
// A broken lease raises SIGIO in the thread of run(). One signal may stand for several
// leases, so that thread asks about each one.
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
    // Leases a file of a node that was enrolled, unless another one is leased. 0, or -errno: EAGAIN
    // while a writer exists.
    int take(std::uint64_t nodeid, const sys::UniqueFd& file);
    bool holds(std::uint64_t nodeid) const;

    // Makes the calling thread that of run(). Before files are opened; SIGIO must be blocked.
    void attach();
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

    std::vector<Shared> held() const;
    void give_up_broken();
    void end(const Shared& lease);
    void give_back_after_push(Shared lease);

    Pushers& pushers_;
    mutable std::shared_mutex lock_;
    std::unordered_multimap<std::uint64_t, Shared> leases_;  // by nodeid
    pid_t thread_ = 0;                                       // of attach()
    std::atomic<bool> stopping_{false};
    std::atomic<std::uint64_t> broken_{0};
};

}  // namespace zc
