#include "serve/sources/index_source.hpp"

#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace zc {

namespace {

constexpr std::uint64_t kDots = 2;
constexpr unsigned kTypeShift = 12;  // from a mode to d_type

statx_timestamp time_of(std::uint64_t seconds, std::uint32_t nanoseconds) noexcept {
    statx_timestamp time{};
    time.tv_sec = static_cast<std::int64_t>(seconds);
    time.tv_nsec = nanoseconds;
    return time;
}

struct ::statx status_of(const abi::Attr& from) noexcept {
    struct ::statx status {};
    status.stx_mask = STATX_BASIC_STATS;
    status.stx_blksize = from.blksize;
    status.stx_nlink = from.nlink;
    status.stx_uid = from.uid;
    status.stx_gid = from.gid;
    status.stx_mode = static_cast<std::uint16_t>(from.mode);
    status.stx_ino = from.ino;
    status.stx_size = from.size;
    status.stx_blocks = from.blocks;
    status.stx_atime = time_of(from.atime, from.atimensec);
    status.stx_mtime = time_of(from.mtime, from.mtimensec);
    status.stx_ctime = time_of(from.ctime, from.ctimensec);
    return status;
}

}  // namespace

class IndexSource::Names final : public Listing {
  public:
    Names(std::shared_ptr<const IndexSource> source, std::uint32_t directory,
          const MemberIndex::Names& names) noexcept
        : source_(std::move(source)), directory_(directory), names_(names) {}

    int seek(std::uint64_t position) override {
        position_ = position;
        return 0;
    }

    int peek(Entry& into) override {
        MemberIndex::Entry entry{position_ == 0 ? "." : "..", directory_};
        int error = 0;
        if (position_ == 1) {
            entry.node = source_->index().above(directory_);
        } else if (position_ >= kDots) {
            if (position_ - kDots >= names_.count) {
                return 0;
            }
            error = source_->index().entry(names_.first + position_ - kDots, entry);
        }
        if (error == 0) {
            error = source_->describe(entry.node, found_);
        }
        if (error != 0) {
            return error == kUpcall ? -EIO : error;
        }
        name_.assign(entry.name);
        into = {found_.status.stx_ino, position_ + 1,
                static_cast<unsigned char>(found_.status.stx_mode >> kTypeShift), name_.c_str(),
                name_.size()};
        return 1;
    }

    void skip() override { ++position_; }
    bool found(Found& into) override {
        into = found_;
        return true;
    }

  private:
    const std::shared_ptr<const IndexSource> source_;
    const std::uint32_t directory_;
    const MemberIndex::Names names_;
    Found found_;  // the entry at hand
    std::string name_;
};

class IndexSource::At final : public SourceDirectory {
  public:
    At(std::shared_ptr<const IndexSource> source, std::uint32_t number) noexcept
        : source_(std::move(source)), number_(number) {}

    int find(const char* name, Found& into) const override {
        std::uint32_t number = number_;
        const int error = *name == '\0' ? 0 : index().lookup(number_, name, number);
        return error != 0 ? error : source_->describe(number, into);
    }

    int enter(std::string_view path, Ref& into) const override {
        auto number = number_;
        int error = for_each_name(
            path, [&](std::string_view name) { return index().lookup(number, name, number); });
        MemberIndex::Names names;
        error = error == 0 ? index().names_of(number, names) : error;
        if (error != 0) {
            return error;
        }
        into = std::make_shared<const At>(source_, number);
        return 0;
    }

    int status(const char*, const Identity& wanted, struct ::statx& into) const override {
        Found found;
        const int error = source_->describe(number_of(wanted), found);
        into = found.status;
        return error != 0 ? error : found.identity == wanted ? 0 : -ESTALE;
    }

    int open(const char* name, const Identity& wanted, Opened& into) const override {
        const int error = reopen(name, wanted, into.status);
        return error != 0 ? error : index().extents(number_of(wanted), into.extents);
    }

    // Control says what has become of an archive that has changed. A packed member goes up even
    // while control has it open: control counts who uses its memory.
    int reopen(const char* name, const Identity& wanted, struct ::statx& into) const override {
        const bool ours = index().is_stored(number_of(wanted)) && index().is_unchanged();
        return ours ? status(name, wanted, into) : kUpcall;
    }

    int read_link(const char*, const Identity& wanted, std::string& into) const override {
        std::string_view target;
        const int error = index().target(number_of(wanted), target);
        into.assign(target);
        return error;
    }

    int get_xattr(const char*, const Identity&, const char*, Bytes&) const override {
        return -ENODATA;
    }

    int list_xattrs(const char*, const Identity&, Bytes& into) const override {
        into.clear();
        return 0;
    }

    int list(std::unique_ptr<Listing>& into, std::vector<struct ::statx>&) const override {
        MemberIndex::Names names;
        if (const int error = index().names_of(number_, names); error != 0) {
            return error;
        }
        into = std::make_unique<Names>(source_, number_, names);
        return 0;
    }

  private:
    const MemberIndex& index() const noexcept { return source_->index(); }
    std::uint32_t number_of(const Identity& wanted) const noexcept {
        return static_cast<std::uint32_t>(wanted.ino - index().ino(0));
    }

    const std::shared_ptr<const IndexSource> source_;
    const std::uint32_t number_;
};

std::shared_ptr<const IndexSource> IndexSource::make(std::shared_ptr<const MemberIndex> index) {
    return std::shared_ptr<const IndexSource>(new IndexSource(std::move(index)));
}

SourceDirectory::Ref IndexSource::root() const {
    return std::make_shared<const At>(shared_from_this(), MemberIndex::kRoot);
}

int IndexSource::describe(std::uint32_t number, Found& into) const {
    abi::Attr attributes{};
    const int error = index_->attributes(number, attributes);
    if (error == 0) {
        into.status = status_of(attributes);
        into.identity = {attributes.ino, 0, 0, attributes.mode & S_IFMT};
    }
    return error;
}

}  // namespace zc
