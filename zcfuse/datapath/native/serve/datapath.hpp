// The data path as a whole: the channel with its clones, the serving threads, the relay, the
// notifier and the prefaulter. One object a mount.
//
// install() and revoke() are control's, and may be called while requests are served: a reply that
// is amended after install() returned sees the lease. stop() is bounded: a thread that is stuck in
// a system call on a backing file is left behind with what it shares, never joined.
#pragma once

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "serve/state.hpp"

namespace zc {

struct InstallExtent {
    int fd;  // borrowed; the lease keeps a copy. -1: a hole
    std::uint64_t offset;
    std::uint64_t length;
};

class DataPath {
  public:
    // Owns both descriptors, also when it throws (std::system_error, std::invalid_argument).
    DataPath(int channel_fd, int upcall_fd, const Config& config, bool device);
    // Goes on with what an earlier process left in `surviving`, if it left something. Serves
    // /dev/fuse by the session and the given clones of it, which it owns as well: requests that
    // are read from a clone end with the last descriptor of it, so others must hold it.
    DataPath(int channel_fd, int upcall_fd, const Config& config, bool device,
             std::shared_ptr<SurvivingState> surviving, std::vector<int> clones);
    DataPath(const DataPath&) = delete;
    DataPath& operator=(const DataPath&) = delete;
    ~DataPath();

    // The end of a thread ends the connection by these. Without, it ends our part in it.
    void set_abort(const std::string& abort_file, const std::string& mountpoint);
    // Where changes are pushed to, if set_abort() is not called.
    void set_mountpoint(const std::string& mountpoint);
    // Returns once every thread is up. Throws std::runtime_error when one could not be. A
    // successor first shows control the INIT that its predecessor had, and drops the reply.
    void start();
    // Has the kernel send all requests again that were read and not answered, by whatever process.
    // Those that this process works on come twice. Returns 0 or -errno.
    int resend() const;
    // Has the holder at the other end of a socket keep files without a name, for a successor. Call
    // both before start(). 0 or -errno.
    int connect_holder(int socket);
    // Such a file of an earlier process; the caller keeps the descriptor.
    void inherit_orphan(std::uint64_t nodeid, int file);
    // The connection is about to end because we want it to: what follows is no failure.
    void expect_end() { state_->ending.expect(); }
    // Returns false when a thread had to be left behind. The second call returns what the first
    // did.
    bool stop(std::chrono::milliseconds wait = std::chrono::seconds(10));
    // Stops, and leaves the connection and the surviving state as they are to a successor: requests
    // under way stay unanswered, and what this process cleans up afterwards reaches neither.
    // Returns false when a thread had to be left behind: then a successor must wait for the end of
    // this process.
    bool leave();

    // (mode, the Cause::text() of why it is not a better one). Throws std::system_error when a
    // descriptor cannot be copied, std::invalid_argument for an unknown path. `path` forces a
    // serving path for this file; "" chooses as for other files. Of a file with a `presence`, READs
    // of what that does not show go to control.
    std::pair<std::string, std::string> install(std::uint64_t nodeid,
                                                std::span<const InstallExtent> extents,
                                                const std::string& path = {},
                                                std::shared_ptr<const Presence> presence = nullptr);
    // Returns the result that install() would have now. It asks the kernel for passthrough,
    // releases the grant and counts nothing.
    std::pair<std::string, std::string> would_serve(std::span<const InstallExtent> extents,
                                                    const std::string& path = {});
    // Watches the requests under way in a file that outlives this process (serve/suspects.hpp).
    // Before start(). Returns those that were there when earlier processes died. Throws
    // std::system_error.
    std::vector<Suspects::Suspect> watch_requests(int file);
    // How an open, or recently closed, node is served: "passthrough" or "cached"; "" if it is
    // closed or control serves it.
    std::string serves(std::uint64_t nodeid) const;
    void revoke(std::uint64_t nodeid);
    // From now on control answers requests for this directory and everything below it. Open files
    // stay open. Returns false for a node that is not leased.
    bool revoke_directory(std::uint64_t nodeid);
    // Has each change below a leased node's directories pushed to the kernel from now on, which
    // then keeps names and attributes without a time limit.
    Reason push_changes(std::uint64_t nodeid, bool strict);
    // How long the kernel may keep the answers about a node; nothing for a node of control's.
    std::optional<Freshness> freshness(std::uint64_t nodeid) const;
    // Waits until each change that returned before is pushed; false at the end of the time, or
    // where nothing is pushed.
    bool sync(std::chrono::milliseconds wait);
    int invalidate_inode(std::uint64_t nodeid, std::int64_t offset, std::int64_t length) const;
    int invalidate_entry(std::uint64_t parent, std::span<const std::byte> name) const;

    State& state() const noexcept { return *state_; }
    struct Transport {
        bool device = false;
        std::size_t threads = 0;
        std::size_t cloned = 0;
        std::string clone_error;
        Cause cause;  // why there is no ring
    };
    const Transport& transport() const noexcept { return transport_; }
    std::chrono::nanoseconds uptime() const { return std::chrono::steady_clock::now() - started_; }

  private:
    struct Plan {
        std::optional<Mode> forced;
        std::string outcome;
        Cause cause;
        std::shared_ptr<const BackingId> backing;
    };
    // Borrows the descriptors for the call only.
    Plan plan(std::span<const InstallExtent> extents, const std::string& path);
    DataPath(std::shared_ptr<const DeviceChannel> session, sys::UniqueFd upcalls,
             const Config& config, std::shared_ptr<SurvivingState> surviving,
             std::optional<std::vector<sys::UniqueFd>> clones);
    // Has the kernel's mode of a file that control has open survive, or takes the one that did.
    void keep_mode(std::uint64_t nodeid, std::shared_ptr<const BackingId>& backing);
    void show_init();
    void finish_changes();
    void inherit_files(const std::shared_ptr<const DeviceChannel>& session);
    void take_clones(const std::shared_ptr<const DeviceChannel>& session,
                     std::vector<sys::UniqueFd> clones);
    void add_clones(const std::shared_ptr<const DeviceChannel>& session, unsigned threads);
    // Ends the threads; false if some had to be left behind. stop_lock_ is held.
    bool end_threads(std::chrono::milliseconds wait);
    void let_go();
    bool nudge_until(int running, std::chrono::milliseconds wait);
    // Ends the connection by letting go of its descriptors, where nothing else can.
    void sever();
    void sever_channels();
    // The session's own channel; nullptr once it has stopped.
    std::shared_ptr<const DeviceChannel> session() const;

    std::shared_ptr<State> state_;
    // A node of control's with a lease, for a successor.
    struct Kept {
        std::uint64_t handle = 0;
        bool inherited = false;
        std::shared_ptr<const BackingId> backing;  // of an inherited one
    };

    std::vector<std::thread> threads_;
    std::unordered_map<std::uint64_t, Kept> kept_;
    std::mutex kept_lock_;  // innermost but for HandleMemory's
    Transport transport_;
    std::vector<std::shared_ptr<const DeviceChannel>>
        channels_;  // one a serving thread; the session first
    std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
    bool stopped_ = false;
    bool all_ended_ = true;
    std::mutex stop_lock_;              // outermost: one stop() at a time
    mutable std::mutex channels_lock_;  // innermost
};

}  // namespace zc
