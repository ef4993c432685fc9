#include "serve/sources/live_index.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "serve/constants.hpp"
#include "serve/sources/hashing.hpp"
#include "sys/files.hpp"

namespace zc {

namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr unsigned kDirectoryMode = 0555;
constexpr unsigned kLinkMode = 0777;
constexpr unsigned kPermissions = 07777;

unsigned type_of(EntryKind kind) noexcept {
    return kind == EntryKind::directory ? S_IFDIR : kind == EntryKind::symlink ? S_IFLNK : S_IFREG;
}

}  // namespace

std::uint64_t LiveIndex::ino_of(const IndexRecord& record, std::uint64_t stamp) noexcept {
    return record.kind == EntryKind::forwarded ? record.key : mix(record.key, stamp) | kMadeInoBit;
}

statx_timestamp LiveIndex::time_of(std::int64_t time) noexcept {
    const auto rest = time % kSecond;
    statx_timestamp made{};
    made.tv_sec = time / kSecond - (rest < 0 ? 1 : 0);
    made.tv_nsec = static_cast<std::uint32_t>(rest < 0 ? rest + kSecond : rest);
    return made;
}

LiveIndex::Snapshot LiveIndex::snapshot(std::uint32_t number) const {
    Snapshot found;
    found.number = number;
    found.record = store_.records[number];
    found.given = store_.given_of(found.record);
    found.time_ns = shown_.made_ns;
    if (found.record.kind == EntryKind::blob) {
        found.terms = store_.terms_of(found.record);
        const auto time = times_.find(number);
        found.time_ns = time == times_.end() ? shown_.made_ns : time->second;
    } else if (found.record.kind == EntryKind::directory) {
        const auto& directory = directories_.at(number);
        found.links = directory.policy != nullptr ? 1 : 2 + directory.directories;
        found.time_ns = directory.time_ns;
    } else if (found.record.kind == EntryKind::symlink) {
        found.text = store_.texts.at(found.record.place, found.record.extra);
    }
    return found;
}

bool LiveIndex::is_there(const EntryRef& place) const {
    return store_.records[place.number].serial == place.serial;
}

bool LiveIndex::has_ended(std::uint32_t number) const {
    const auto end = ends_.find(number);
    return end != ends_.end() && sys::coarse_milliseconds() >= end->second;
}

std::uint64_t LiveIndex::ino_of_entry(std::uint32_t number) const {
    Snapshot entry;
    {
        const std::shared_lock guard(lock_);
        if (number >= store_.records.extent() || store_.records[number].kind == EntryKind::none) {
            return 0;
        }
        entry = snapshot(number);
    }
    Found found;
    return examine(entry, found) == 0 ? found.status.stx_ino : 0;
}

std::optional<std::uint32_t> LiveIndex::valid(std::uint32_t directory,
                                              std::string_view name) const {
    const auto found = store_.find(directory, name);
    return found && has_ended(*found) ? std::nullopt : found;
}

bool LiveIndex::is_listed(std::uint32_t directory) const {
    const auto& policy = directories_.at(directory).policy;
    return policy == nullptr || sys::coarse_milliseconds() < policy->listed_until_ms;
}

int LiveIndex::entry_at(const View& view, std::string_view name, Snapshot& into) const {
    const std::shared_lock guard(lock_);
    const auto directory = view.place.number;
    if (!is_there(view.place)) {
        return -ESTALE;
    }
    if (name.size() > kNameBytes) {
        return -ENAMETOOLONG;
    }
    if (name.empty()) {
        into = snapshot(directory);
        return 0;
    }
    const auto kind_of = [this](std::uint32_t number) { return store_.records[number].kind; };
    const bool has_own = view.own && is_there(*view.own);
    auto found = valid(directory, name);
    if (has_own && (!found || kind_of(*found) == EntryKind::forwarded)) {
        const auto own = valid(view.own->number, name);
        found = own && (!found || kind_of(*own) != EntryKind::forwarded) ? own : found;
    }
    if (found) {
        if (kind_of(*found) == EntryKind::missing) {
            return -ENOENT;
        }
        into = snapshot(*found);
        return 0;
    }
    if (directories_.at(directory).policy == nullptr) {
        return -ENOENT;
    }
    for (const auto home : {directory, has_own ? view.own->number : directory}) {
        // A name of the listing whose own lease is over.
        if (const auto ended = store_.find(home, name); ended && store_.records[*ended].listed) {
            into = snapshot(*ended);
            return kUpcall;
        }
        if (is_listed(home) && directories_.at(home).policy->complete) {
            return -ENOENT;
        }
    }
    return kUpcall;
}

std::optional<LiveIndex::EntryRef> LiveIndex::place_of_user(const EntryRef& place,
                                                            std::uint32_t uid) const {
    const std::shared_lock guard(lock_);
    if (!is_there(place)) {
        return {};
    }
    const auto& policy = directories_.at(place.number).policy;
    if (policy == nullptr) {
        return {};
    }
    const auto user = policy->users.find(uid);
    if (user == policy->users.end()) {
        // Nothing is known of this user, but of others: the answers differ.
        return policy->users.empty() ? std::nullopt : std::optional(place);
    }
    return EntryRef{user->second, store_.records[user->second].serial};
}

std::vector<LiveIndex::Snapshot> LiveIndex::entries_of_users(const EntryRef& place,
                                                             std::string_view name) const {
    std::vector<Snapshot> found;
    const std::shared_lock guard(lock_);
    if (!is_there(place) || directories_.at(place.number).policy == nullptr || name.empty()) {
        return found;
    }
    for (const auto& [uid, home] : directories_.at(place.number).policy->users) {
        const auto number = valid(home, name);
        if (number && store_.records[*number].kind != EntryKind::missing) {
            found.push_back(snapshot(*number));
        }
    }
    return found;
}

int LiveIndex::listed_at(const View& view, EntryRef& into) const {
    const std::shared_lock guard(lock_);
    if (!is_there(view.place)) {
        return -ESTALE;
    }
    if (is_listed(view.place.number)) {
        into = view.place;
        return 0;
    }
    if (view.own && is_there(*view.own) && is_listed(view.own->number)) {
        into = *view.own;
        return 0;
    }
    return kUpcall;
}

// The status of the parent directory; the root is its own parent.
int LiveIndex::above(const EntryRef& place, Found& into) const {
    Snapshot entry;
    {
        const std::shared_lock guard(lock_);
        if (!is_there(place)) {
            return -ESTALE;
        }
        entry = snapshot(store_.records[place.number].parent);
    }
    return examine(entry, into);
}

int LiveIndex::enter(const EntryRef& place, std::string_view name, EntryRef& into) const {
    Snapshot entry;
    if (const int error = entry_at({place, {}}, name, entry); error != 0) {
        return error;
    }
    into = {entry.number, entry.record.serial};
    const auto kind = entry.record.kind;
    return kind == EntryKind::directory ? 0 : kind == EntryKind::forwarded ? kUpcall : -ENOTDIR;
}

std::vector<LiveIndex::EntryRef> LiveIndex::directories_at(const EntryRef& place,
                                                           std::string_view name) const {
    std::vector<EntryRef> found;
    if (EntryRef one; enter(place, name, one) == 0) {
        found.push_back(one);
    }
    for (const auto& entry : entries_of_users(place, name)) {
        if (entry.record.kind == EntryKind::directory) {
            found.push_back({entry.number, entry.record.serial});
        }
    }
    return found;
}

// Whether a path leads to the directory of an inode number. Users may have several ways, of which
// few fork.
bool LiveIndex::enter_to(const EntryRef& from, std::string_view path, std::uint64_t ino,
                         EntryRef& into) const {
    if (path.empty()) {
        const std::shared_lock guard(lock_);
        into = from;
        return is_there(from) && ino_of(store_.records[from.number], kNoFiles) == ino;
    }
    const auto name = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(name.size() + 1, path.size()));
    const auto ways = directories_at(from, name);
    return std::any_of(ways.begin(), ways.end(),
                       [&](const EntryRef& way) { return enter_to(way, path, ino, into); });
}

int LiveIndex::entry_behind(const EntryRef& place, Position& position, Snapshot& into,
                            std::string& name) const {
    const std::shared_lock guard(lock_);
    if (!is_there(place)) {
        return 0;  // a directory that was removed has no names
    }
    const auto& directory = directories_.at(place.number);
    const auto& children = directory.children;
    auto at = place_in(directory, position.order);
    while (directory.policy != nullptr && at != children.size() &&
           !store_.records[children[at]].listed) {
        ++at;
    }
    if (at == children.size()) {
        return 0;
    }
    into = snapshot(children[at]);
    name = store_.name_of(into.record);
    position = {into.record.order, has_ended(children[at])};
    return 1;
}

struct ::statx LiveIndex::shown(const Snapshot& entry, const Blob& blob) const {
    const auto& given = entry.given;
    auto times = blob.times();
    if (times.modified == 0) {
        times = {entry.time_ns, entry.time_ns, entry.time_ns};
    }
    const auto kind = entry.record.kind;
    unsigned mode = kind == EntryKind::directory ? kDirectoryMode
                    : kind == EntryKind::symlink ? kLinkMode
                                                 : blob.mode();
    mode = (given.set & kGivenMode) != 0 ? given.mode : mode;
    struct ::statx made {};
    made.stx_mask = STATX_BASIC_STATS;
    made.stx_size = kind == EntryKind::symlink ? entry.text.size() : blob.size();
    made.stx_blocks = blob.sectors();
    made.stx_blksize = kBlockBytes;
    made.stx_atime = time_of(times.accessed);
    made.stx_mtime = time_of((given.set & kGivenMtime) != 0 ? given.mtime_ns : times.modified);
    made.stx_ctime = time_of(times.changed);
    made.stx_mode = static_cast<std::uint16_t>(type_of(kind) | (mode & kPermissions));
    made.stx_nlink = entry.links;
    made.stx_uid = (given.set & kGivenUid) != 0 ? given.uid : shown_.uid;
    made.stx_gid = (given.set & kGivenGid) != 0 ? given.gid : shown_.gid;
    return made;
}

int LiveIndex::examine(const Snapshot& entry, Found& into) const {
    if (entry.record.kind == EntryKind::forwarded) {
        into.status.stx_ino = entry.record.key;
        into.status.stx_mode = entry.record.extra;
        return kUpcall;
    }
    Blob blob;
    auto stamp = kNoFiles;
    if (entry.record.kind == EntryKind::blob) {
        if (const int error = blob.look(entry.terms, paths_); error != 0) {
            return error;
        }
        stamp = blob.stamp();
    }
    into.status = shown(entry, blob);
    into.status.stx_ino = ino_of(entry.record, stamp);
    const auto type = static_cast<std::uint32_t>(into.status.stx_mode & S_IFMT);
    into.identity = {into.status.stx_ino, 0, 0, type};
    return 0;
}

Identity LiveIndex::identity_of(std::uint32_t directory) const {
    const std::shared_lock guard(lock_);
    if (!directories_.contains(directory)) {
        return {};
    }
    return {ino_of(store_.records[directory], kNoFiles), 0, 0, S_IFDIR};
}

// Its files may lie on any number of filesystems.
int LiveIndex::filesystem_status(struct ::statvfs& into) const {
    into = {};
    into.f_bsize = kBlockBytes;
    into.f_frsize = kBlockBytes;
    into.f_namemax = kNameBytes;
    return 0;
}

std::size_t LiveIndex::entries() const {
    const std::shared_lock guard(lock_);
    return store_.records.size();
}

std::size_t LiveIndex::bytes() const noexcept {
    const std::shared_lock guard(lock_);
    auto sum = store_.bytes() + (times_.size() + ends_.size()) * 3 * sizeof(std::int64_t);
    for (const auto& [number, directory] : directories_) {
        sum += sizeof directory + directory.children.capacity() * sizeof(std::uint32_t);
    }
    return sum;
}

}  // namespace zc
