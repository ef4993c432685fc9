#include "serve/datapath.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <latch>
#include <map>
#include <optional>
#include <stdexcept>
#include <system_error>

#include "serve/forget_names.hpp"
#include "serve/ops/recorded.hpp"
#include "serve/pipe.hpp"
#include "serve/transport_choice.hpp"
#include "serve/workers.hpp"

namespace zc {

namespace {

// /dev/fuse then brings only INIT, FORGET and INTERRUPT.
constexpr unsigned kThreadsBesideRings = 2;
constexpr auto kNudgeEvery = std::chrono::milliseconds(10);
// For a data path that nobody stopped: its owner may hold a lock that others wait for.
constexpr auto kStopUnasked = std::chrono::milliseconds(500);
constexpr auto kSeverWait = std::chrono::milliseconds(500);

// A file that has several extents is opened once. Throws std::system_error.
std::vector<Extent> copies_of(std::span<const InstallExtent> extents) {
    struct Copy {
        std::shared_ptr<const sys::UniqueFd> file;
        std::uint64_t id;
    };
    std::map<int, Copy> files;
    std::vector<Extent> copies;
    copies.reserve(extents.size());
    for (const auto& extent : extents) {
        auto& copy = files[extent.fd];
        if (!copy.file && extent.fd < 0) {
            copy = {hole_file(), next_file_id()};
        } else if (!copy.file) {
            auto file = std::make_shared<sys::UniqueFd>();
            if (const int error = sys::dup_cloexec(extent.fd, *file); error < 0) {
                throw std::system_error(-error, std::generic_category(),
                                        "copying a backing descriptor");
            }
            copy = {std::move(file), next_file_id()};
        }
        if (!copy.file) {
            throw std::system_error(ENOMEM, std::generic_category(), "making the file of holes");
        }
        copies.push_back({copy.file, copy.id, extent.offset, extent.length, extent.fd < 0});
    }
    return copies;
}

std::vector<sys::UniqueFd> owned(const std::vector<int>& fds) {
    std::vector<sys::UniqueFd> result;
    for (const int fd : fds) {
        result.emplace_back(fd);
    }
    return result;
}

}  // namespace

DataPath::DataPath(int channel_fd, int upcall_fd, const Config& config, bool device)
    : DataPath(std::make_shared<const DeviceChannel>(sys::UniqueFd(channel_fd), device),
               sys::UniqueFd(upcall_fd), config, std::make_shared<SurvivingState>(), std::nullopt) {
}

DataPath::DataPath(int channel_fd, int upcall_fd, const Config& config, bool device,
                   std::shared_ptr<SurvivingState> surviving, std::vector<int> clones)
    : DataPath(std::make_shared<const DeviceChannel>(sys::UniqueFd(channel_fd), device),
               sys::UniqueFd(upcall_fd), config, std::move(surviving), owned(clones)) {}

DataPath::DataPath(std::shared_ptr<const DeviceChannel> session, sys::UniqueFd upcalls,
                   const Config& config, std::shared_ptr<SurvivingState> surviving,
                   std::optional<std::vector<sys::UniqueFd>> clones) {
    const auto limits = choose_limits(config, ReplyPipe(std::size_t{1} << 20).slots());
    auto choice = make_rings(config, parse_mode(config.path), limits, *session, clones.has_value());
    const unsigned threads = clones ? static_cast<unsigned>(clones->size() + 1)
                             : choice.rings && config.threads == 0
                                 ? kThreadsBesideRings
                                 : serving_threads(config.threads);
    state_ =
        std::make_shared<State>(config, std::move(surviving), std::move(upcalls), limits, threads);
    state_->rings = std::move(choice.rings);
    if (state_->rings) {
        state_->negotiation.offer_rings(parse_transport(config.transport) == TransportWish::uring);
    }
    state_->budget = std::make_shared<LockBudget>(config.lock_budget);
    lock_ring_buffers(*state_);
    WindowOptions windows;
    windows.prefault = config.prefault;
    state_->windows = std::make_shared<WindowCache>(state_->budget, windows);
    if (clones) {
        take_clones(session, std::move(*clones));
    } else {
        add_clones(session, threads);
    }
    transport_.cause = std::move(choice.cause);
    state_->backings.set_session(session);
    inherit_files(session);
    allow_nudges();
}

DataPath::~DataPath() {
    stop(kStopUnasked);
}

void DataPath::take_clones(const std::shared_ptr<const DeviceChannel>& session,
                           std::vector<sys::UniqueFd> clones) {
    transport_ = {session->device(), clones.size() + 1, clones.size(), "", {}};
    channels_.push_back(session);
    for (auto& clone : clones) {
        channels_.push_back(
            std::make_shared<const DeviceChannel>(std::move(clone), session->device()));
    }
}

void DataPath::add_clones(const std::shared_ptr<const DeviceChannel>& session, unsigned threads) {
    transport_ = {session->device(), threads, 0, "", {}};
    channels_.push_back(session);
    while (channels_.size() < threads) {
        sys::UniqueFd clone;
        const int error = session->device() ? sys::clone_device(session->fd(), clone) : 0;
        if (error < 0) {
            transport_.clone_error = std::string("clone: ") + ::strerrorname_np(-error);
        }
        transport_.cloned += clone ? 1 : 0;
        // Threads may share a descriptor, at the price of a list of requests that they share too.
        channels_.push_back(
            clone ? std::make_shared<const DeviceChannel>(std::move(clone), session->device())
                  : session);
    }
}

std::shared_ptr<const DeviceChannel> DataPath::session() const {
    const std::lock_guard guard(channels_lock_);
    return channels_.empty() ? nullptr : channels_.front();
}

void DataPath::set_abort(const std::string& abort_file, const std::string& mountpoint) {
    state_->ending.set_abort(abort_file, mountpoint);
    set_mountpoint(mountpoint);
}

void DataPath::set_mountpoint(const std::string& mountpoint) {
    if (state_->coherence) {
        state_->coherence->pushers().attach(channels_.front(), mountpoint);
    }
}

// The files that clients have had open since an earlier process.
void DataPath::inherit_files(const std::shared_ptr<const DeviceChannel>& session) {
    auto& handles = state_->surviving->handles();
    for (const int id : handles.stray_backings()) {
        const BackingId closed(session, handles, id);
    }
    std::map<int, std::shared_ptr<const BackingId>> backings;
    for (const auto& handle : handles.all()) {
        std::shared_ptr<const BackingId> backing;
        if (handle.backing_id > 0) {
            auto& known = backings[handle.backing_id];
            if (!known) {
                known = std::make_shared<const BackingId>(session, handles, handle.backing_id);
            }
            backing = known;
        }
        if (!is_own(handle.nodeid)) {
            kept_[handle.nodeid] = {handle.number, true, std::move(backing)};
            continue;
        }
        state_->leased_nodes.files().inherit(handle.nodeid, handle.uid, handle.writes != 0,
                                             std::move(backing));
    }
}

// Control's library wants an INIT before all else, and the kernel sends none to a successor.
void DataPath::show_init() {
    if (state_->negotiation.agreed()) {
        state_->upcalls.forward(std::make_shared<const NoChannel>(),
                                state_->surviving->session().init(), Clock::now());
    }
}

// Copies first: a renamed file may be one. A copy below a renamed directory is found once the new
// name of that is noted.
void DataPath::finish_changes() {
    auto& leased_nodes = state_->leased_nodes;
    auto begun = leased_nodes.inherit_copies();
    const bool has_changes = !state_->surviving->changes().inherited().empty();
    if (begun.empty() && !has_changes) {
        return;
    }
    const auto counts = state_->ledger.join("start");
    leased_nodes.note_shown(begun, *counts);
    if (has_changes) {
        ops::Context context{*state_, *counts, {}};
        ops::finish_renames(context);
        leased_nodes.note_shown(begun, *counts);
    }
}

int DataPath::connect_holder(int socket) {
    return state_->leased_nodes.orphans().connect(socket);
}

void DataPath::inherit_orphan(std::uint64_t nodeid, int file) {
    sys::UniqueFd copy;
    if (sys::dup_cloexec(file, copy) == 0) {
        state_->leased_nodes.orphans().inherit(nodeid, std::move(copy));
    }
}

int DataPath::resend() const {
    const auto session = this->session();
    return session ? Notifier::resend(*session) : -ENOTCONN;
}

void DataPath::start() {
    show_init();
    finish_changes();
    state_->leased_nodes.share_descriptors();
    started_ = std::chrono::steady_clock::now();
    auto plans = threads_of(state_, channels_);
    const auto ready = std::make_shared<std::latch>(static_cast<std::ptrdiff_t>(plans.size()));
    for (auto& plan : plans) {
        threads_.push_back(started(state_, std::move(plan), ready));
    }
    ready->wait();
    if (state_->ending.is_over()) {
        throw std::runtime_error("the data path could not start: " + state_->ending.reason());
    }
    state_->ending.set_last_resort([this] { sever(); });
}

bool DataPath::stop(std::chrono::milliseconds wait) {
    const std::lock_guard guard(stop_lock_);
    if (stopped_) {
        return all_ended_;
    }
    if (!end_threads(wait)) {
        // A thread that is stuck in a backing file would keep the connection open, and its
        // clients asleep, even beyond the end of the process: it holds the descriptors.
        sever_channels();
    }
    let_go();
    return all_ended_;
}

bool DataPath::leave() {
    const std::lock_guard guard(stop_lock_);
    if (stopped_) {
        return false;
    }
    end_threads(std::chrono::seconds(10));
    // From here on no call of this process reaches the kernel. One that closes a backing id would
    // close the successor's, which has the same number.
    sever_channels();
    if (state_->surviving->detach() < 0) {
        return all_ended_ = false;  // so nothing is cleaned up: that would reach the successor
    }
    let_go();
    return all_ended_;
}

bool DataPath::end_threads(std::chrono::milliseconds wait) {
    stopped_ = true;
    state_->ending.expect();
    ask_to_end(*state_);
    state_->windows->stop();
    all_ended_ = nudge_until(0, wait);
    for (auto& thread : threads_) {
        if (all_ended_) {
            thread.join();
        } else {
            thread.detach();
        }
    }
    threads_.clear();
    return all_ended_;
}

void DataPath::let_go() {
    state_->leased_nodes.clear();
    state_->leases.clear();
    state_->backings.set_session(nullptr);
    {
        const std::lock_guard channels_guard(channels_lock_);
        channels_.clear();
    }
    state_->ending.ended("stopped");
}

bool DataPath::nudge_until(int running, std::chrono::milliseconds wait) {
    const auto deadline = std::chrono::steady_clock::now() + wait;
    while (state_->running.load() > running && std::chrono::steady_clock::now() < deadline) {
        for (auto& thread : threads_) {
            nudge(thread);
        }
        std::this_thread::sleep_for(kNudgeEvery);
    }
    return state_->running.load() <= running;
}

void DataPath::sever_channels() {
    const sys::UniqueFd instead(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const std::lock_guard guard(channels_lock_);
    for (const auto& channel : channels_) {
        channel->sever(instead.get());
    }
}

// Runs in the thread that failed. stop() cannot have let go of the threads meanwhile: it waits for
// this one, and longer than this takes.
void DataPath::sever() {
    sever_channels();
    ask_to_end(*state_);
    nudge_until(1, kSeverWait);
}

DataPath::Plan DataPath::plan(std::span<const InstallExtent> extents, const std::string& path) {
    Plan plan;
    plan.forced = path.empty() ? std::nullopt : std::optional(parse_mode(path));
    const auto mode = plan.forced.value_or(state_->mode);
    if (mode == Mode::upcall || state_->mode == Mode::upcall) {
        plan.outcome = "upcall";
        return plan;
    }
    plan.outcome = "cached";
    const bool whole = extents.size() == 1 && extents.front().fd >= 0 &&
                       extents.front().offset == 0 && extents.front().length == kWholeFile;
    if (!whole) {
        plan.cause = {Reason::passthrough_extents};
    } else if (mode == Mode::automatic || mode == Mode::passthrough) {
        std::tie(plan.backing, plan.cause) = state_->backings.add(extents.front().fd);
        plan.outcome = plan.backing ? "passthrough" : "cached";
    }
    return plan;
}

void DataPath::keep_mode(std::uint64_t nodeid, std::shared_ptr<const BackingId>& backing) {
    if (is_own(nodeid)) {
        if (auto inherited = state_->leased_nodes.files().inherited(nodeid)) {
            backing.swap(inherited->backing);
        }
        return;
    }
    std::shared_ptr<const BackingId> dropped;  // behind the lock
    const std::lock_guard guard(kept_lock_);
    auto& kept = kept_[nodeid];
    if (kept.inherited) {
        kept.inherited = false;
        dropped = std::exchange(backing, std::move(kept.backing));
    } else if (kept.handle == 0) {
        kept.handle = state_->surviving->handles().open(
            {0, nodeid, 0, 0, backing ? backing->get() : 0, 0, 0});
    }
}

std::pair<std::string, std::string> DataPath::install(std::uint64_t nodeid,
                                                      std::span<const InstallExtent> extents,
                                                      const std::string& path,
                                                      std::shared_ptr<const Presence> presence) {
    auto plan = this->plan(extents, path);
    if (presence) {
        plan.backing.reset();  // the kernel would read missing bytes
        plan.cause = {Reason::passthrough_incomplete};
    }
    if (plan.outcome == "upcall" || (presence && is_own(nodeid))) {
        plan.outcome = "upcall";
        state_->ledger.opened(plan.outcome, {});
        return {plan.outcome, ""};
    }
    keep_mode(nodeid, plan.backing);
    auto lease = std::make_shared<const FileLease>(copies_of(extents), std::move(plan.backing),
                                                   state_->windows, plan.forced, nullptr,
                                                   std::move(presence));
    if (is_own(nodeid)) {
        // The data path may have it open too, and the kernel wants one mode for both.
        lease = state_->leased_nodes.files().open_with(nodeid, std::move(lease),
                                                       OpenFiles::Keep::no, 0);
    } else {
        state_->leases.put(nodeid, lease);
    }
    const std::string outcome = lease->passthrough() ? "passthrough" : "cached";
    state_->ledger.opened(outcome, plan.cause);
    return {outcome, plan.cause.text()};
}

std::pair<std::string, std::string> DataPath::would_serve(std::span<const InstallExtent> extents,
                                                          const std::string& path) {
    const auto plan = this->plan(extents, path);
    return {plan.outcome, plan.cause.text()};
}

std::vector<Suspects::Suspect> DataPath::watch_requests(int file) {
    state_->suspects = std::make_unique<Suspects>(file);
    return state_->suspects->all();
}

std::string DataPath::serves(std::uint64_t nodeid) const {
    const auto lease = state_->leases.find(nodeid);
    return !lease ? "" : lease->passthrough() ? "passthrough" : "cached";
}

void DataPath::revoke(std::uint64_t nodeid) {
    if (is_own(nodeid)) {
        state_->leased_nodes.files().release(nodeid, sys::coarse_milliseconds());
        return;
    }
    state_->leases.take(nodeid);
    Kept gone;  // behind the lock
    const std::lock_guard guard(kept_lock_);
    if (const auto kept = kept_.find(nodeid); kept != kept_.end()) {
        state_->surviving->handles().close(kept->second.handle);
        gone = std::move(kept->second);
        kept_.erase(kept);
    }
}

bool DataPath::revoke_directory(std::uint64_t nodeid) {
    const bool known = state_->leased_nodes.revoke(nodeid);
    // The lease still answers the requests that were under way when the mark was set. Then the
    // kernel is notified, so that it keeps none of those answers. A slower thread notifies it
    // again.
    state_->ledger.settle();
    state_->leased_nodes.files().drop_unused();  // what a READ has just opened
    forget_names(*state_, nodeid);
    return known;
}

Reason DataPath::push_changes(std::uint64_t nodeid, bool strict) {
    const auto root = state_->leased_nodes.root_of(nodeid);
    const auto how = strict ? Freshness::strict : Freshness::pushed;
    return state_->coherence && root ? state_->coherence->watch(root, how) : Reason::none;
}

std::optional<Freshness> DataPath::freshness(std::uint64_t nodeid) const {
    const auto root = state_->leased_nodes.root_above(nodeid);
    return root ? std::optional(root->source->freshness()) : std::nullopt;
}

bool DataPath::sync(std::chrono::milliseconds wait) {
    return state_->coherence && state_->coherence->sync(wait);
}

int DataPath::invalidate_inode(std::uint64_t nodeid, std::int64_t offset,
                               std::int64_t length) const {
    const auto session = this->session();
    return session ? Notifier::invalidate_inode(*session, nodeid, offset, length) : -ENOTCONN;
}

int DataPath::invalidate_entry(std::uint64_t parent, std::span<const std::byte> name) const {
    const auto session = this->session();
    return session ? Notifier::invalidate_entry(*session, parent, name) : -ENOTCONN;
}

}  // namespace zc
