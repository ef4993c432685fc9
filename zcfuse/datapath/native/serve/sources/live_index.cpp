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
constexpr std::uint64_t kDots = 2;
constexpr std::uint64_t kNoFiles = 1;  // the stamp of an entry without files
constexpr unsigned kDirectoryMode = 0555;
constexpr unsigned kLinkMode = 0777;
constexpr unsigned kPermissions = 07777;
constexpr unsigned kTypeShift = 12;  // from a mode to d_type

std::uint64_t ino_of(const IndexRecord& record, std::uint64_t stamp) noexcept {
    return record.kind == EntryKind::handed_up ? record.key : mix(record.key, stamp) | kMadeInoBit;
}

statx_timestamp time_of(std::int64_t time) noexcept {
    const auto rest = time % kSecond;
    statx_timestamp made{};
    made.tv_sec = time / kSecond - (rest < 0 ? 1 : 0);
    made.tv_nsec = static_cast<std::uint32_t>(rest < 0 ? rest + kSecond : rest);
    return made;
}

unsigned type_of(EntryKind kind) noexcept {
    return kind == EntryKind::directory ? S_IFDIR : kind == EntryKind::symlink ? S_IFLNK : S_IFREG;
}

// As ops::open compares it: a size and a time that are others once the bytes have changed, whatever
// the entry shows.
void set_version(const Blob& blob, struct ::statx& into) noexcept {
    into.stx_size = blob.version();
    into.stx_mtime = time_of(blob.times().modified);
}

}  // namespace

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
        found.links = directory.asks ? 1 : 2 + directory.directories;
        found.time_ns = directory.time_ns;
    } else if (found.record.kind == EntryKind::symlink) {
        found.text = store_.texts.at(found.record.place, found.record.extra);
    }
    return found;
}

bool LiveIndex::is_there(const Place& place) const {
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

int LiveIndex::entry_at(const Place& place, std::string_view name, Snapshot& into) const {
    const std::shared_lock guard(lock_);
    if (!is_there(place)) {
        return -ESTALE;
    }
    if (name.size() > kNameBytes) {
        return -ENAMETOOLONG;
    }
    const auto found = name.empty() ? std::optional(place.number) : store_.find(place.number, name);
    if (!found || (!name.empty() && has_ended(*found))) {
        return directories_.at(place.number).asks ? kHandUp : -ENOENT;
    }
    into = snapshot(*found);
    return 0;
}

bool LiveIndex::asks(const Place& place) const {
    const std::shared_lock guard(lock_);
    return is_there(place) && directories_.at(place.number).asks;
}

// The status of the parent directory; the root is its own parent.
int LiveIndex::above(const Place& place, Found& into) const {
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

int LiveIndex::enter(const Place& place, std::string_view name, Place& into) const {
    Snapshot entry;
    if (const int error = entry_at(place, name, entry); error != 0) {
        return error;
    }
    into = {entry.number, entry.record.serial};
    const auto kind = entry.record.kind;
    return kind == EntryKind::directory ? 0 : kind == EntryKind::handed_up ? kHandUp : -ENOTDIR;
}

int LiveIndex::entry_behind(const Place& place, std::uint32_t order, Snapshot& into,
                            std::string& name) const {
    const std::shared_lock guard(lock_);
    if (!is_there(place)) {
        return 0;  // a directory that was removed has no names
    }
    const auto& directory = directories_.at(place.number);
    const auto at = place_in(directory, order);
    if (at == directory.children.size()) {
        return 0;
    }
    into = snapshot(directory.children[at]);
    name = store_.name_of(into.record);
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
    if (entry.record.kind == EntryKind::handed_up) {
        into.status.stx_ino = entry.record.key;
        into.status.stx_mode = entry.record.extra;
        return kHandUp;
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

// Attributes of an open file, whose name may show another file by now.
class LiveIndex::OpenEntry final : public OpenStatus {
  public:
    OpenEntry(std::shared_ptr<const LiveIndex> source, Snapshot entry, std::uint64_t ino)
        : source_(std::move(source)), entry_(std::move(entry)), ino_(ino) {}

    int status(const FileLease& lease, struct ::statx& into) const override {
        Blob blob;
        const int error = blob.look_at_open(entry_.terms, lease);
        into = source_->shown(entry_, blob);
        into.stx_ino = ino_;
        return error;
    }

  private:
    const std::shared_ptr<const LiveIndex> source_;
    const Snapshot entry_;
    const std::uint64_t ino_;
};

class LiveIndex::Names final : public Listing {
  public:
    Names(std::shared_ptr<const LiveIndex> source, const Place& place) noexcept
        : source_(std::move(source)), place_(place) {}

    int seek(std::uint64_t position) override {
        position_ = position;
        return 0;
    }

    // A name whose file is missing, or lies in our own mount, is left out.
    int peek(Entry& into) override {
        if (position_ < kDots) {
            return peek_dots(into);
        }
        Snapshot entry;
        for (;;) {
            const auto order = static_cast<std::uint32_t>(position_ - kDots);
            if (const int more = source_->entry_behind(place_, order, entry, name_); more != 1) {
                return more;
            }
            found_ = {};
            error_ = source_->examine(entry, found_);
            position_ = entry.record.order + kDots;
            if (error_ != -ENOENT && error_ != -ELOOP) {
                break;
            }
            ++position_;
        }
        if (error_ < 0) {
            found_.status.stx_mode = S_IFREG;
            // readdir(3) skips a name of inode 0.
            found_.status.stx_ino = ino_of(entry.record, kNoFiles);
        }
        into = {found_.status.stx_ino, position_ + 1,
                static_cast<unsigned char>(found_.status.stx_mode >> kTypeShift), name_.c_str(),
                name_.size()};
        return 1;
    }

    void skip() override { ++position_; }
    bool found(Found& into) override {
        into = found_;
        return error_ == 0;
    }

  private:
    int peek_dots(Entry& into) {
        name_ = position_ == 0 ? "." : "..";
        Snapshot entry;
        error_ =
            position_ == 0 ? source_->entry_at(place_, "", entry) : source_->above(place_, found_);
        if (error_ == 0 && position_ == 0) {
            error_ = source_->examine(entry, found_);
        }
        into = {found_.status.stx_ino, position_ + 1, S_IFDIR >> kTypeShift, name_.c_str(),
                name_.size()};
        return error_ != 0 ? error_ : 1;
    }

    const std::shared_ptr<const LiveIndex> source_;
    const Place place_;
    Found found_;  // the entry at hand
    int error_ = 0;
    std::string name_;
};

class LiveIndex::At final : public SourceDirectory {
  public:
    At(std::shared_ptr<const LiveIndex> source, const Place& place) noexcept
        : source_(std::move(source)), place_(place) {}

    int find(const char* name, Found& into) const override {
        Snapshot entry;
        const int error = source_->entry_at(place_, name, entry);
        return error != 0 ? error : source_->examine(entry, into);
    }

    int enter(std::string_view path, Ref& into) const override {
        auto place = place_;
        while (!path.empty()) {
            const auto name = path.substr(0, path.find('/'));
            path.remove_prefix(std::min(name.size() + 1, path.size()));
            if (const int error = source_->enter(place, name, place); error != 0) {
                return error;
            }
        }
        into = std::make_shared<const At>(source_, place);
        return 0;
    }

    int status(const char* name, const Identity& wanted, struct ::statx& into) const override {
        Found found;
        const int error = find(name, found);
        into = found.status;
        return error != 0 ? error : found.identity == wanted ? 0 : -ESTALE;
    }

    int open(const char* name, const Identity& wanted, Opened& into) const override {
        Snapshot entry;
        Blob blob;
        if (const int error = blob_at(name, wanted, entry, blob, Opens::yes); error != 0) {
            return error;
        }
        into.extents = blob.extents();
        into.mode = entry.given.path;
        into.keeps = false;
        set_version(blob, into.status);
        into.shown = std::make_shared<const OpenEntry>(source_, std::move(entry), wanted.ino);
        return 0;
    }

    int reopen(const char* name, const Identity& wanted, struct ::statx& into) const override {
        Snapshot entry;
        Blob blob;
        const int error = blob_at(name, wanted, entry, blob, Opens::no);
        set_version(blob, into);
        return error;
    }

    int read_link(const char* name, const Identity& wanted, std::string& into) const override {
        Snapshot entry;
        Found found;
        int error = source_->entry_at(place_, name, entry);
        error = error != 0 ? error : source_->examine(entry, found);
        into = entry.text;
        if (error != 0) {
            return error;
        }
        return found.identity != wanted                  ? -ESTALE
               : entry.record.kind == EntryKind::symlink ? 0
                                                         : -EINVAL;
    }

    // An entry's only attribute is the ACL of the files behind it, and a mode by keyword replaces
    // that.
    int get_xattr(const char* name, const Identity& wanted, const char* attribute,
                  Bytes& into) const override {
        into.clear();
        if (std::string_view(attribute) != kAccessAcl) {
            return -ENODATA;
        }
        const int error = acl(name, wanted, into);
        return error != 0 ? error : into.empty() ? -ENODATA : 0;
    }

    int list_xattrs(const char* name, const Identity& wanted, Bytes& into) const override {
        Bytes value;
        into.clear();
        const int error = acl(name, wanted, value);
        if (error == 0 && !value.empty()) {
            const std::string_view text(kAccessAcl);
            for (const char letter : text) {
                into.push_back(static_cast<std::byte>(letter));
            }
            into.push_back(std::byte{0});
        }
        return error;
    }

    int list(std::unique_ptr<Listing>& into, std::vector<struct ::statx>& versions) const override {
        if (source_->asks(place_)) {
            return kHandUp;
        }
        Found found;
        if (const int error = find("", found); error != 0) {
            return error;
        }
        versions.push_back(found.status);
        into = std::make_unique<Names>(source_, place_);
        return 0;
    }

  private:
    enum class Opens : bool { no, yes };

    int blob_at(const char* name, const Identity& wanted, Snapshot& entry, Blob& blob,
                Opens opens) const {
        if (const int error = source_->entry_at(place_, name, entry); error != 0) {
            return error;
        }
        if (entry.record.kind != EntryKind::blob) {
            const auto kind = entry.record.kind;
            return kind == EntryKind::directory   ? -EISDIR
                   : kind == EntryKind::handed_up ? kHandUp
                                                  : -ELOOP;
        }
        const int error = opens == Opens::yes ? blob.open(entry.terms, source_->paths_)
                                              : blob.look(entry.terms, source_->paths_);
        const bool same = error == 0 && ino_of(entry.record, blob.stamp()) == wanted.ino;
        return error != 0 || same ? error : -ESTALE;
    }

    int acl(const char* name, const Identity& wanted, Bytes& into) const {
        Snapshot entry;
        Blob blob;
        std::string found;
        if (wanted.type != S_IFREG) {
            return 0;
        }
        int error = blob_at(name, wanted, entry, blob, Opens::no);
        if (error == 0 && (entry.given.set & kGivenMode) == 0) {
            error = blob.acl(source_->paths_, found);
        }
        const auto bytes = std::as_bytes(std::span(found));
        into.assign(bytes.begin(), bytes.end());
        return error;
    }

    const std::shared_ptr<const LiveIndex> source_;
    const Place place_;
};

SourceDirectory::Ref LiveIndex::root() const {
    return std::make_shared<const At>(shared_from_this(),
                                      Place{kRoot, store_.records[kRoot].serial});
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
    auto sum = store_.bytes() + times_.size() * 3 * sizeof(std::int64_t);
    for (const auto& [number, directory] : directories_) {
        sum += sizeof directory + directory.children.capacity() * sizeof(std::uint32_t);
    }
    return sum;
}

}  // namespace zc
