#include "serve/coherence/watcher.hpp"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <utility>

#include "serve/sources/directory_source.hpp"
#include "serve/sources/layer_marks.hpp"
#include "sys/syscalls.hpp"
#include "sys/threads.hpp"

namespace zc {

namespace {

constexpr std::size_t kReadBytes = 256 << 10;
constexpr std::string_view kFencePrefix = "fence.";

std::string path_of(int fd) {
    std::string path(4096, '\0');
    const auto link = "/proc/self/fd/" + std::to_string(fd);
    const auto n = ::readlink(link.c_str(), path.data(), path.size());
    path.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
    return path;
}

Reason refusal_of(int error) noexcept {
    switch (error) {
        case -EPERM:
            return Reason::push_not_permitted;
        case -EXDEV:  // in a subvolume of btrfs, whose events would name another filesystem
            return Reason::push_filesystem;
        default:
            return Reason::push_queue;
    }
}

}  // namespace

Coherence::Coherence(LeasedNodes& leased_nodes, const Negotiation& negotiation,
                     std::string fence_directory)
    : nodes_(leased_nodes),
      pushers_(leased_nodes, negotiation),
      read_leases_(std::make_shared<ReadLeases>(pushers_)),
      names_(leased_nodes),
      queue_error_(queue_.open()),
      fence_path_(std::move(fence_directory)) {
    if (fence_path_.empty()) {
        return;
    }
    fence_.reset(::open(fence_path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    auto* handle = reinterpret_cast<struct ::file_handle*>(fence_handle_.data());
    fence_in_changes_ = fence_ && queue_error_ == 0 && sys::handle_of(fence_.get(), *handle) == 0 &&
                        queue_.watch_names(fence_.get()) == 0;
    fence_in_names_ = fence_ && names_.watch_fence(fence_.get());
    // Filesystems may be watched without it, so a fence in the other queue says nothing.
    if (queue_error_ == 0 ? !fence_in_changes_ : !fence_in_names_) {
        fence_.reset();
    }
}

Reason Coherence::watch(const std::shared_ptr<const LeaseRoot>& root, Freshness how) {
    names_.forget(root->nodeid);  // it may be another directory than before
    const auto refusal = try_watch(root, how);
    refused_.at(static_cast<std::size_t>(refusal)).fetch_add(1, std::memory_order_relaxed);
    return refusal;
}

Reason Coherence::try_watch(const std::shared_ptr<const LeaseRoot>& root, Freshness how) {
    std::vector<Source::Real> real;
    root->source->add_real(root->number, real);
    const auto reports_all = [](const auto& one) { return sys::reports_changes(one.fd); };
    if (real.empty() || !std::all_of(real.begin(), real.end(), reports_all)) {
        return Reason::push_filesystem;
    }
    int error = queue_error_;
    for (auto one = real.begin(); error == 0 && one != real.end(); ++one) {
        error = add(root, *one);
    }
    if (error < 0) {
        const auto refusal = refusal_of(error);
        return refusal == Reason::push_not_permitted ? watch_names(*root) : refusal;
    }
    nodes_.set_any_pushed(how);
    root->source->set_pushed(how);
    return Reason::none;
}

// Below a filter a change of one name may change others too.
Reason Coherence::watch_names(const LeaseRoot& root) {
    if (!names_.is_open() || (fence_ && !fence_in_names_) || !root.source->names_can_be_watched()) {
        return Reason::push_not_permitted;
    }
    root.source->set_pushed(Freshness::names);
    return Reason::push_names_only;
}

int Coherence::add(const std::shared_ptr<const LeaseRoot>& root, const Source::Real& real) {
    struct ::statx status {};
    if (const int error = sys::status_of(real.fd, "", false, status); error < 0) {
        return error;
    }
    auto identity = DirectorySource::identity_of(status, real.fd, "");
    identity.lease = real.layer;
    const Watched watched{root, real.layer, real.fd, identity};
    const auto id = sys::filesystem_id(real.fd);
    const std::unique_lock guard(watched_lock_);
    // A directory that the kernel forgets and finds again gets a new lease each time.
    const auto is_over = [&](const Watched& one) {
        return nodes_.root_of(one.root->nodeid) != one.root;
    };
    for (const auto& filesystem : watched_) {
        std::erase_if(filesystem->directories, is_over);
    }
    const auto known = std::find_if(watched_.begin(), watched_.end(),
                                    [&](const auto& one) { return one->id == id; });
    if (known != watched_.end()) {
        (*known)->directories.push_back(watched);
        return 0;
    }
    auto filesystem = std::make_unique<Filesystem>();
    filesystem->id = id;
    filesystem->directories.push_back(watched);
    if (const int error = watch_new(*filesystem, real.fd); error < 0) {
        return error;
    }
    watched_.push_back(std::move(filesystem));
    return 0;
}

int Coherence::watch_new(Filesystem& filesystem, int directory) {
    const int error = sys::open_beneath(directory, ".", O_RDONLY | O_DIRECTORY, filesystem.mount);
    return error < 0 ? error : queue_.watch_filesystem(filesystem.mount.get());
}

void Coherence::run() {
    schedule_error_ = sys::set_policy(sys::thread_id(), sys::Policy::fifo);
    std::vector<std::byte> buffer(kReadBytes);
    while (!stopping_) {
        std::array<struct ::pollfd, 2> queues{
            {{queue_.descriptor(), POLLIN, 0}, {names_.descriptor(), POLLIN, 0}}};
        if (::poll(queues.data(), queues.size(), -1) <= 0) {
            continue;  // a signal: look whether to stop
        }
        if (queues[0].revents != 0) {
            read_changes(buffer);
        }
        if (queues[1].revents != 0) {
            read_names(buffer);
        }
    }
}

void Coherence::read_changes(std::span<std::byte> buffer) {
    const auto n = queue_.read(buffer);
    const auto now = Clock::now();
    auto events = buffer.first(n > 0 ? static_cast<std::size_t>(n) : 0);
    for (sys::Change change; sys::ChangeQueue::next(events, change);) {
        note(change, now);
    }
    settle();
}

void Coherence::read_names(std::span<std::byte> buffer) {
    const auto n = names_.read(buffer);
    const auto now = Clock::now();
    auto events = buffer.first(n > 0 ? static_cast<std::size_t>(n) : 0);
    for (WatchedNames::Change change; sys::NameChanges::next(events, change);) {
        note(change, now);
    }
    settle();
}

void Coherence::stop() {
    stopping_ = true;
    read_leases_->stop();
    pushers_.stop();
    const std::lock_guard guard(fence_lock_);
    fence_changed_.notify_all();
}

void Coherence::note(const sys::Change& change, Clock::time_point now) {
    events_.fetch_add(1, std::memory_order_relaxed);
    if (change.lost_events()) {
        overflows_.fetch_add(1, std::memory_order_relaxed);
        recover();
        return;
    }
    if (is_fence(change)) {
        return;
    }
    const std::shared_lock guard(watched_lock_);
    for (const auto& filesystem : watched_) {
        if (filesystem->id == change.filesystem) {
            push(change, *filesystem, now);
        }
    }
}

void Coherence::note(const WatchedNames::Change& change, Clock::time_point now) {
    if (change.lost_events()) {
        events_.fetch_add(1, std::memory_order_relaxed);
        overflows_.fetch_add(1, std::memory_order_relaxed);
        recover();
        return;
    }
    if (names_.is_fence(change)) {
        pass_fence(change.name, fences_named_);
        return;
    }
    if (change.is_end()) {
        names_.end(change.watch);
    }
    if (change.name.empty()) {
        return;  // of the directory itself, which the one above reports too
    }
    events_.fetch_add(1, std::memory_order_relaxed);
    if (change.of_directory()) {
        nodes_.directories_changed();
    }
    nodes_.note_name_change();
    const auto nodes = names_.nodes_of(change);
    for (const auto nodeid : nodes) {
        pushers_.post({nodeid, std::string(change.name), 0, false, now});
        reshaped_ = reshaped_ || reshapes(change, nodeid);
    }
    unknown_.fetch_add(nodes.empty() ? 1 : 0, std::memory_order_relaxed);
}

// Any name or attribute that the kernel has may be wrong once events are lost. Fences that wait
// were made before, or their events are lost.
void Coherence::recover() {
    forget_everything();
    const std::lock_guard guard(fence_lock_);
    fences_seen_ = fences_named_ = fences_asked_;
    fence_changed_.notify_all();
}

void Coherence::push(const sys::Change& change, const Filesystem& filesystem,
                     Clock::time_point now) {
    const bool itself = change.name == ".";
    const bool names =
        ((change.mask & sys::kNameChanges) != 0 || may_be_whiteout(change, filesystem)) &&
        !itself && !change.name.empty();
    if (change.of_directory() && names) {
        nodes_.directories_changed();
    }
    if (names) {
        nodes_.note_name_change();
    }
    bool known = false;
    if (names && change.directory != nullptr) {
        for (const auto nodeid : nodes_of(filesystem, change.directory)) {
            known = true;
            pushers_.post({nodeid, std::string(change.name), 0, false, now});
            reshaped_ = reshaped_ || parts_changed(nodeid, change.name);
        }
    }
    auto* file = change.file != nullptr ? change.file : itself ? change.directory : nullptr;
    if (file != nullptr) {
        for (const auto nodeid : nodes_of(filesystem, file)) {
            known = true;
            if (must_push(change, nodeid)) {
                const bool pages = (change.mask & sys::kDataChanges) != 0;
                pushers_.post({0, {}, nodeid, pages, now});
            }
        }
    }
    reshaped_ = reshaped_ || (known && reshapes(change, filesystem));
    unknown_.fetch_add(known ? 0 : 1, std::memory_order_relaxed);
}

// A renamed directory, and the marks of a union: `.wh.` names, and the opaque attribute of a
// directory, whose event is that of any change of attributes.
bool Coherence::reshapes(const sys::Change& change, const Filesystem& filesystem) {
    constexpr std::uint64_t kDirectoryChanges = FAN_MOVED_FROM | FAN_MOVED_TO | FAN_ATTRIB;
    const bool of_directory = change.of_directory() && (change.mask & kDirectoryChanges) != 0;
    return (of_directory || is_reserved(change.name)) && has_layers(filesystem);
}

bool Coherence::has_layers(const Filesystem& filesystem) {
    return std::any_of(filesystem.directories.begin(), filesystem.directories.end(),
                       [](const Watched& watched) {
                           return watched.root->source->kind() == Source::Kind::overlay;
                       });
}

// An empty file in a layer becomes a whiteout, or none, by an extended attribute.
bool Coherence::may_be_whiteout(const sys::Change& change, const Filesystem& filesystem) {
    sys::UniqueFd file;
    struct ::statx status {};
    return (change.mask & FAN_ATTRIB) != 0 && !change.of_directory() && change.file != nullptr &&
           has_layers(filesystem) &&
           sys::open_handle(filesystem.mount.get(), change.file, file) == 0 &&
           sys::status_of(file.get(), "", false, status) == 0 && S_ISREG(status.stx_mode) &&
           status.stx_size == 0;
}

// Two layers have a directory in common whatever else happens. With three, a name in the middle one
// may hide what the lowest adds.
bool Coherence::parts_changed(std::uint64_t directory, std::string_view name) const {
    const auto root = nodes_.is_in_union(directory) ? nodes_.root_above(directory) : nullptr;
    return root && root->source->layers() > 2 && is_merged_directory(directory, name);
}

// The same of a name in a directory that the kernel knows. A directory that was made or removed, or
// got a mark, matters if it is part of one that the kernel knows.
bool Coherence::reshapes(const WatchedNames::Change& change, std::uint64_t directory) const {
    if (!nodes_.is_in_union(directory)) {
        return false;
    }
    const bool moved = change.of_directory() && change.is_move();
    return moved || is_reserved(change.name) || is_merged_directory(directory, change.name);
}

// Whether a name that changed in a layer shows a directory that the kernel knows. What a layer has
// under that name says which parts the layers below add to it.
bool Coherence::is_merged_directory(std::uint64_t directory, std::string_view name) const {
    const auto place = nodes_.place_of(directory);
    const auto root = place ? nodes_.root_of(place->root) : nullptr;
    if (!root) {
        return false;
    }
    SourceDirectory::Ref at;
    Found found;
    int error = root->source->root()->enter(place->path, at);
    error = error == 0 ? at->find(std::string(name).c_str(), found) : error;
    found.identity.lease += root->number;
    if (error != 0) {
        return error != -ENOENT;
    }
    return S_ISDIR(found.status.stx_mode) && nodes_.nodes().nodeid_of(found.identity) != 0;
}

void Coherence::settle() {
    if (reshaped_) {
        forget_everything();
    }
}

// Open directories first: the kernel asks again at once, and keeps what it gets then.
void Coherence::forget_everything() {
    reshaped_ = false;
    names_.layers_changed();
    nodes_.directories_changed();
    pushers_.forget_everything();
}

bool Coherence::must_push(const sys::Change& change, std::uint64_t nodeid) {
    const auto held = nodes_.nodes().take_held(nodeid);
    const bool pages = (change.mask & sys::kDataChanges) != 0;
    if (held == 0 || (held == NodeTable::Held::pages && !pages)) {
        coalesced_.fetch_add(1, std::memory_order_relaxed);
        return false;
    }
    return true;
}

std::vector<std::uint64_t> Coherence::nodes_of(const Filesystem& filesystem,
                                               struct ::file_handle* handle) const {
    std::vector<std::uint64_t> found;
    sys::UniqueFd file;
    struct ::statx status {};
    if (sys::open_handle(filesystem.mount.get(), handle, file) < 0 ||
        sys::status_of(file.get(), "", false, status) < 0) {
        return found;
    }
    for (const auto& watched : filesystem.directories) {
        add_node(watched, file.get(), status, found);
    }
    return found;
}

void Coherence::add_node(const Watched& watched, int fd, const struct ::statx& status,
                         std::vector<std::uint64_t>& into) const {
    auto identity = DirectorySource::identity_of(status, fd, "");
    identity.lease = watched.layer;
    const auto nodeid =
        identity == watched.identity ? watched.root->nodeid : nodes_.nodes().nodeid_of(identity);
    const bool merged = watched.root->source->kind() == Source::Kind::overlay;
    if (nodeid != 0) {
        into.push_back(nodeid);
    }
    // The kernel may still have the node that the directory had before one covered it.
    const auto above = merged && S_ISDIR(status.stx_mode) ? merged_node(watched, fd) : 0;
    if (above != 0 && above != nodeid) {
        into.push_back(above);
    }
}

// The node of a merged directory is that of its topmost part, so it is found by the path.
std::uint64_t Coherence::merged_node(const Watched& watched, int fd) const {
    const auto top = path_of(watched.fd);
    const auto path = path_of(fd);
    if (top.empty() || !path.starts_with(top + '/')) {
        return 0;
    }
    SourceDirectory::Ref directory;
    Found found;
    if (watched.root->source->root()->enter(path.substr(top.size() + 1), directory) != 0 ||
        directory->find("", found) != 0) {
        return 0;
    }
    found.identity.lease += watched.root->number;
    return nodes_.nodes().nodeid_of(found.identity);
}

bool Coherence::is_fence(const sys::Change& change) {
    const auto& handle = *reinterpret_cast<const struct ::file_handle*>(fence_handle_.data());
    if (!fence_ || change.directory == nullptr || !sys::same_handle(*change.directory, handle)) {
        return false;
    }
    if ((change.mask & FAN_CREATE) != 0) {
        pass_fence(change.name, fences_seen_);
    }
    return true;
}

void Coherence::pass_fence(std::string_view name, std::uint64_t& seen) {
    if (!name.starts_with(kFencePrefix)) {
        return;
    }
    std::uint64_t number = 0;
    const auto digits = name.substr(kFencePrefix.size());
    std::from_chars(digits.data(), digits.data() + digits.size(), number);
    settle();
    while (!stopping_ && !pushers_.drain(Clock::now() + std::chrono::seconds(1))) {
    }
    const std::lock_guard guard(fence_lock_);
    seen = std::max(seen, number);
    fence_changed_.notify_all();
}

bool Coherence::sync(std::chrono::milliseconds wait) {
    if (!fence_) {
        return false;
    }
    std::uint64_t number = 0;
    {
        const std::lock_guard guard(fence_lock_);
        number = ++fences_asked_;
    }
    const auto name = std::string(kFencePrefix) + std::to_string(number);
    const sys::UniqueFd made(
        ::openat(fence_.get(), name.c_str(), O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0600));
    if (!made) {
        return false;
    }
    ::unlinkat(fence_.get(), name.c_str(), 0);
    {
        std::unique_lock guard(fence_lock_);
        const auto is_seen = [&] {
            return stopping_ || ((!fence_in_changes_ || fences_seen_ >= number) &&
                                 (!fence_in_names_ || fences_named_ >= number));
        };
        if (!fence_changed_.wait_for(guard, wait, is_seen) || stopping_) {
            return false;
        }
    }
    pushers_.forget_named_files();
    return true;
}

Coherence::Statistics Coherence::statistics() const {
    Statistics found;
    found.events = events_;
    found.unknown = unknown_;
    found.coalesced = coalesced_;
    found.overflows = overflows_;
    found.schedule_error = schedule_error_;
    for (std::size_t i = 0; i < refused_.size(); ++i) {
        found.refused.at(i) = refused_.at(i);
    }
    found.refused.at(static_cast<std::size_t>(Reason::push_no_watch)) = names_.refused();
    found.directories = names_.size();
    found.pushed = pushers_.statistics();
    found.leases = read_leases_->statistics();
    const std::shared_lock guard(watched_lock_);
    found.filesystems = watched_.size();
    return found;
}

}  // namespace zc
