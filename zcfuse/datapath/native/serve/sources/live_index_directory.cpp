// What a live index answers at one of its directories: lookups, opens and listings.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <span>
#include <utility>

#include "serve/constants.hpp"
#include "serve/sources/live_index.hpp"

namespace zc {

namespace {

constexpr std::uint64_t kDots = 2;
constexpr unsigned kTypeShift = 12;  // from a mode to d_type

}  // namespace

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
    // `place` is the directory, and its names lie `from` a place: there, or where a user's do.
    Names(std::shared_ptr<const LiveIndex> source, const EntryRef& place,
          const EntryRef& from) noexcept
        : source_(std::move(source)), place_(place), from_(from) {}

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
            Position at{static_cast<std::uint32_t>(position_ - kDots)};
            if (const int more = source_->entry_behind(from_, at, entry, name_); more != 1) {
                return more;
            }
            found_ = {};
            error_ = source_->examine(entry, found_);
            error_ = error_ == 0 && at.has_ended ? kUpcall : error_;
            position_ = at.order + kDots;
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
        error_ = position_ == 0 ? source_->entry_at({place_, {}}, "", entry)
                                : source_->above(place_, found_);
        if (error_ == 0 && position_ == 0) {
            error_ = source_->examine(entry, found_);
        }
        into = {found_.status.stx_ino, position_ + 1, S_IFDIR >> kTypeShift, name_.c_str(),
                name_.size()};
        return error_ != 0 ? error_ : 1;
    }

    const std::shared_ptr<const LiveIndex> source_;
    const EntryRef place_;
    const EntryRef from_;
    Found found_;  // the entry at hand
    int error_ = 0;
    std::string name_;
};

class LiveIndex::At final : public SourceDirectory {
  public:
    At(std::shared_ptr<const LiveIndex> source, const View& view) noexcept
        : source_(std::move(source)), view_(view) {}

    int find(const char* name, Found& into) const override {
        Snapshot entry;
        const int error = source_->entry_at(view_, name, entry);
        const bool known = error == 0 || entry.record.kind != EntryKind::none;
        const int looked = known ? source_->examine(entry, into) : error;
        return error != 0 ? error : looked;
    }

    Ref seen_by(std::uint32_t uid) const override {
        const auto own =
            source_->users_ != 0 ? source_->place_of_user(view_.place, uid) : std::nullopt;
        return own ? std::make_shared<const At>(source_, View{view_.place, own}) : nullptr;
    }

    int enter(std::string_view path, Ref& into) const override {
        auto place = view_.place;
        const int error = for_each_name(
            path, [&](std::string_view name) { return source_->enter(place, name, place); });
        if (error == 0) {
            into = std::make_shared<const At>(source_, View{place, {}});
        }
        return error;
    }

    int enter_to(std::string_view path, const Identity& wanted, Ref& into) const override {
        EntryRef place;
        if (source_->users_ == 0 || !source_->enter_to(view_.place, path, wanted.ino, place)) {
            return enter(path, into);
        }
        into = std::make_shared<const At>(source_, View{place, {}});
        return 0;
    }

    int status(const char* name, const Identity& wanted, struct ::statx& into) const override {
        return any_shown(name, [&](const Snapshot& entry) {
            Found found;
            const int error = source_->examine(entry, found);
            into = found.status;
            return error != 0 ? error : found.identity == wanted ? 0 : -ESTALE;
        });
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
        return any_shown(name, [&](const Snapshot& entry) {
            Found found;
            const int error = source_->examine(entry, found);
            into = entry.text;
            if (error != 0) {
                return error;
            }
            return found.identity != wanted                  ? -ESTALE
                   : entry.record.kind == EntryKind::symlink ? 0
                                                             : -EINVAL;
        });
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
        EntryRef from;
        if (const int error = source_->listed_at(view_, from); error != 0) {
            return error;
        }
        Found found;
        if (const int error = find("", found); error != 0) {
            return error;
        }
        versions.push_back(found.status);
        into = std::make_unique<Names>(source_, view_.place, from);
        return 0;
    }

  private:
    enum class Opens : bool { no, yes };

    // As ops::open compares it: a size and a time that are others once the bytes have changed,
    // whatever the entry shows.
    static void set_version(const Blob& blob, struct ::statx& into) noexcept {
        into.stx_size = blob.version();
        into.stx_mtime = time_of(blob.times().modified);
    }

    // Tries what is shown under a name to everyone, then what single users were shown, until it is
    // the node that the kernel means.
    template <typename Try>
    int any_shown(const char* name, Try attempt) const {
        Snapshot entry;
        int error = source_->entry_at({view_.place, {}}, name, entry);
        error = error != 0 ? error : attempt(entry);
        if (error != 0 && source_->users_ != 0) {
            for (const auto& other : source_->entries_of_users(view_.place, name)) {
                if (attempt(other) == 0) {
                    return 0;
                }
            }
        }
        return error;
    }

    int blob_at(const char* name, const Identity& wanted, Snapshot& entry, Blob& blob,
                Opens opens) const {
        return any_shown(name, [&](const Snapshot& one) {
            entry = one;
            blob = {};
            return blob_of(one, wanted, blob, opens);
        });
    }

    int blob_of(const Snapshot& entry, const Identity& wanted, Blob& blob, Opens opens) const {
        if (entry.record.kind != EntryKind::blob) {
            const auto kind = entry.record.kind;
            return kind == EntryKind::directory   ? -EISDIR
                   : kind == EntryKind::forwarded ? kUpcall
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
    const View view_;
};

SourceDirectory::Ref LiveIndex::root() const {
    return std::make_shared<const At>(shared_from_this(),
                                      View{{kRoot, store_.records[kRoot].serial}, {}});
}

}  // namespace zc
