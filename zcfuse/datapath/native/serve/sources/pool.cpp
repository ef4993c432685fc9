#include "serve/sources/pool.hpp"

#include <fcntl.h>
#include <stdio.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <string>
#include <system_error>
#include <utility>

#include "serve/sources/merged_listing.hpp"
#include "serve/sources/overlay_search.hpp"
#include "serve/sources/union_directory.hpp"
#include "sys/changes.hpp"

namespace zc {

namespace {

bool is_directory(const Found& found) noexcept {
    return S_ISDIR(found.status.stx_mode);
}

// For a change: what control would have to answer for is another mount.
int or_busy(int error) noexcept {
    return error == kUpcall ? -EBUSY : error;
}

void set_changed(int directory) noexcept {
    sys::set_times(directory, {timespec{0, UTIME_OMIT}, timespec{0, UTIME_NOW}});
}

}  // namespace

class PoolSource::At final : public SourceDirectory,
                             public UnionDirectory,
                             public std::enable_shared_from_this<At> {
  public:
    explicit At(std::shared_ptr<const PoolSource> source) noexcept : source_(std::move(source)) {}

    void add(std::size_t branch, Ref directory) {
        parts_.push_back({branch, std::move(directory)});
    }

    int find(const char* name, Found& into) const override;
    sys::Remembered remembered(const char* name) const override {
        return remembered_in(parts_, name);
    }
    int enter(std::string_view path, Ref& into) const override;
    int status(const char* name, const Identity& wanted, struct ::statx& into) const override {
        const int error = ask(wanted, [&](const auto& directory, const Identity& within) {
            return directory.status(name, within, into);
        });
        source_->show(into);
        return error;
    }
    int open(const char* name, const Identity& wanted, Opened& into) const override {
        const int error = ask(wanted, [&](const auto& directory, const Identity& within) {
            return directory.open(name, within, into);
        });
        source_->show(into.status);
        return error;
    }
    int reopen(const char* name, const Identity& wanted, struct ::statx& into) const override {
        return ask(wanted, [&](const auto& directory, const Identity& within) {
            return directory.reopen(name, within, into);
        });
    }
    int read_link(const char* name, const Identity& wanted, std::string& into) const override {
        return ask(wanted, [&](const auto& directory, const Identity& within) {
            return directory.read_link(name, within, into);
        });
    }
    int get_xattr(const char* name, const Identity& wanted, const char* attribute,
                  Bytes& into) const override {
        const auto backing = backing_xattr(attribute);
        return ask(wanted, [&](const auto& directory, const Identity& within) {
            return directory.get_xattr(name, within, backing.c_str(), into);
        });
    }
    int list_xattrs(const char* name, const Identity& wanted, Bytes& into) const override {
        const int error = ask(wanted, [&](const auto& directory, const Identity& within) {
            return directory.list_xattrs(name, within, into);
        });
        if (error == 0) {
            into.resize(shown_xattrs({reinterpret_cast<char*>(into.data()), into.size()}));
        }
        return error;
    }
    int hold(const char* name, const Identity& wanted, int flags, sys::UniqueFd& into,
             struct ::statx& status) const override {
        const int error = ask(wanted, [&](const auto& directory, const Identity& within) {
            return directory.hold(name, within, flags, into, status);
        });
        source_->show(status);
        return error;
    }
    int list(std::unique_ptr<Listing>& into, std::vector<struct ::statx>& versions) const override;
    int identify(int file, const char* name, Found& into) const override;
    int descriptor() const noexcept override { return origin().directory->descriptor(); }
    const UnionDirectory* as_union() const noexcept override { return this; }

    bool is_raised() const noexcept override { return true; }
    int raise(const char*) const override { return 0; }
    int copy_up(const char*, const Identity& wanted, CopiedBytes, Copied& into) const override {
        into = {wanted};
        return 0;
    }
    int begin_making(const char* name, Making& into) const override;
    int finish_making(Making& making, bool is_directory, int made) const override;
    int complete_directory(const char*) const override { return 0; }
    int link(int file, const Identity& of, const char* name) const override;
    int remove(const char* name, bool is_directory) const override;
    int rename(const char* name, const UnionDirectory& to, const char* new_name,
               unsigned flags) const override;

  private:
    const LayerPart& origin() const noexcept { return parts_.back(); }
    const LayerPart* part_in(std::size_t branch) const noexcept {
        const auto found = std::ranges::find(parts_, branch, &LayerPart::layer);
        return found == parts_.end() ? nullptr : &*found;
    }
    template <typename Ask>
    int ask(const Identity& wanted, Ask call) const {
        const auto* part = part_in(wanted.lease);
        auto within = wanted;
        within.lease = 0;
        return part == nullptr ? -ESTALE : call(*part->directory, within);
    }
    int find_in(const LayerPart& part, const char* name, Found& into) const {
        const int error = part.directory->find(name, into);
        into.identity.lease = static_cast<std::uint32_t>(part.layer);
        source_->show(into.status);
        return error;
    }
    // The branches that have a name, with what it is there; kUpcall or -errno.
    struct Has {
        const LayerPart* part;
        Found found;
    };
    int find_all(const char* name, std::vector<Has>& into) const;
    // Gives a branch's part the owner and the mode that the directory shows.
    int match(const LayerPart& part) const;
    void changed(const LayerPart& part) const noexcept {
        if (&part != &origin()) {
            set_changed(descriptor());
        }
    }
    int check_empty(const char* name) const;
    int refused(Change change, const char* name) const;
    int drop(const std::vector<Has>& names, const char* name, bool are_directories) const;
    int exchange(const char* name, const std::vector<Has>& here, const At& to, const char* new_name,
                 const std::vector<Has>& there) const;
    int move(const char* name, const std::vector<Has>& here, const At& to, const char* new_name,
             const std::vector<Has>& there) const;

    const std::shared_ptr<const PoolSource> source_;
    std::vector<LayerPart> parts_;
};

// A file shows as the first branch has it, a directory as the last.
int PoolSource::At::find(const char* name, Found& into) const {
    int error = -ENOENT;
    for (const auto& part : parts_) {
        error = find_in(part, name, into);
        if (!means_missing(error)) {
            break;
        }
    }
    if (error != 0 || !is_directory(into)) {
        return error;
    }
    for (auto at = parts_.rbegin(); at != parts_.rend(); ++at) {
        const auto& part = *at;
        error = find_in(part, name, into);
        if (error == 0 ? is_directory(into) : !means_missing(error)) {
            break;
        }
    }
    return error;
}

int PoolSource::At::find_all(const char* name, std::vector<Has>& into) const {
    for (const auto& part : parts_) {
        Has one{&part, {}};
        const int error = find_in(part, name, one.found);
        if (error == 0) {
            into.push_back(one);
        } else if (!means_missing(error)) {
            return or_busy(error);
        }
    }
    return 0;
}

int PoolSource::At::enter(std::string_view path, Ref& into) const {
    auto at = std::make_shared<At>(source_);
    int error = -ENOENT;
    for (const auto& part : parts_) {
        Ref next;
        error = part.directory->enter(path, next);
        if (error == 0) {
            at->add(part.layer, std::move(next));
        } else if (!means_missing(error) && error != -ENOTDIR) {
            return error;
        }
    }
    if (at->parts_.empty()) {
        return error;
    }
    into = std::move(at);
    return 0;
}

int PoolSource::At::list(std::unique_ptr<Listing>& into,
                         std::vector<struct ::statx>& versions) const {
    std::vector<ListedLayer> layers;
    for (const auto& part : parts_) {
        std::unique_ptr<Listing> names;
        if (const int error = part.directory->list(names, versions); error != 0) {
            return error;
        }
        layers.push_back({part.directory, parts_.size() > 1 ? nullptr : std::move(names), false});
    }
    auto look = [at = weak_from_this()](std::size_t part, const char* name, Found& found) {
        const auto directory = at.lock();
        const int error =
            directory ? directory->find_in(directory->parts_[part], name, found) : -ESTALE;
        return error == 0 && is_directory(found) ? directory->find(name, found) : error;
    };
    into =
        merge_listings(std::move(layers), source_->snapshots_, source_->number_, std::move(look));
    return 0;
}

// Branches may share a filesystem: the name says which has the file. A file without one is where a
// directory is made.
int PoolSource::At::identify(int file, const char* name, Found& into) const {
    Found made;
    if (const int error = origin().directory->identify(file, name, made); error != 0) {
        return error;
    }
    for (const auto& part : parts_) {
        const bool found = *name != '\0' && find_in(part, name, into) == 0;
        if (found && into.identity.ino == made.identity.ino &&
            into.identity.birth == made.identity.birth) {
            return 0;
        }
    }
    into = made;
    into.identity.lease = static_cast<std::uint32_t>(origin().layer);
    source_->show(into.status);
    return 0;
}

int PoolSource::At::match(const LayerPart& part) const {
    Found shown;
    Found there;
    int error = origin().directory->find("", shown);
    error = error == 0 ? part.directory->find("", there) : error;
    const auto& to = shown.status;
    const auto& from = there.status;
    if (error == 0 && (to.stx_uid != from.stx_uid || to.stx_gid != from.stx_gid)) {
        error = sys::set_owner(part.directory->descriptor(), to.stx_uid, to.stx_gid);
    }
    if (error == 0 && to.stx_mode != from.stx_mode) {
        error = sys::set_mode(part.directory->descriptor(), to.stx_mode & ~unsigned{S_IFMT});
    }
    return error;
}

int PoolSource::At::begin_making(const char* name, Making& into) const {
    if (is_reserved(name)) {
        return -EPERM;
    }
    into.lock = std::unique_lock(source_->names_);
    Found found;
    int error = find(name, found);
    if (!means_missing(error)) {
        return error == 0 ? -EEXIST : or_busy(error);
    }
    const auto* part = &origin();
    if (!into.is_directory) {
        error = find_in(origin(), "", found);
        const auto branch = source_->placements_.take(found.identity, name);
        part = error == 0 && branch ? part_in(*branch) : nullptr;
        error = part == nullptr ? kUpcall : part != &origin() ? match(*part) : 0;
    } else {
        error = 0;
    }
    if (error == 0) {
        into.directory = part->directory->descriptor();
        into.name = name;
    }
    return error;
}

int PoolSource::At::finish_making(Making& making, bool, int made) const {
    if (made == 0 && making.directory != descriptor()) {
        set_changed(descriptor());
    }
    return made;
}

int PoolSource::At::link(int file, const Identity& of, const char* name) const {
    if (is_reserved(name)) {
        return -EPERM;
    }
    const std::lock_guard guard(source_->names_);
    Found found;
    if (const int error = find(name, found); !means_missing(error)) {
        return error == 0 ? -EEXIST : or_busy(error);
    }
    const auto* part = part_in(of.lease);
    if (part == nullptr) {
        return kUpcall;  // the branch of the file lacks this directory
    }
    const int error = sys::make_link(file, part->directory->descriptor(), name);
    if (error == 0) {
        changed(*part);
    }
    return error;
}

int PoolSource::At::check_empty(const char* name) const {
    Ref inside;
    bool has = false;
    int error = enter(name, inside);
    error = error == 0 ? has_entries(*inside, has) : error;
    return error != 0 ? or_busy(error) : has ? -ENOTEMPTY : 0;
}

int PoolSource::At::refused(Change change, const char* name) const {
    Found found;
    const int error = find_in(origin(), "", found);
    return error == 0 ? source_->refused(found.identity, change, name) : or_busy(error);
}

// The file that shows goes last, so a client sees the name until then.
int PoolSource::At::drop(const std::vector<Has>& names, const char* name,
                         bool are_directories) const {
    for (auto at = names.rbegin(); at != names.rend(); ++at) {
        const auto& one = *at;
        if (is_directory(one.found) != are_directories) {
            continue;
        }
        const int fd = one.part->directory->descriptor();
        if (const int error = sys::remove_name(fd, name, are_directories); error != 0) {
            return error;
        }
        changed(*one.part);
    }
    return 0;
}

int PoolSource::At::remove(const char* name, bool removes_directory) const {
    const std::lock_guard guard(source_->names_);
    std::vector<Has> names;
    int error = find_all(name, names);
    if (error != 0 || names.empty()) {
        return error != 0 ? error : -ENOENT;
    }
    if (is_directory(names.front().found) != removes_directory) {
        return removes_directory ? -ENOTDIR : -EISDIR;
    }
    error = refused(Change::remove, name);
    error = error == 0 && removes_directory ? check_empty(name) : error;
    return error == 0 ? drop(names, name, removes_directory) : error;
}

int PoolSource::At::exchange(const char* name, const std::vector<Has>& here, const At& to,
                             const char* new_name, const std::vector<Has>& there) const {
    const bool alike = std::ranges::equal(
        here, there, {}, [](const Has& one) { return one.part->layer; },
        [](const Has& one) { return one.part->layer; });
    if (!alike) {
        return -EXDEV;
    }
    for (std::size_t i = 0; i < here.size(); ++i) {
        const int error =
            sys::rename_name(here[i].part->directory->descriptor(), name,
                             there[i].part->directory->descriptor(), new_name, RENAME_EXCHANGE);
        if (error != 0) {
            return error;
        }
    }
    set_changed(descriptor());
    set_changed(to.descriptor());
    return 0;
}

// In each branch that has the name. Then whatever it replaces in other branches goes.
int PoolSource::At::move(const char* name, const std::vector<Has>& here, const At& to,
                         const char* new_name, const std::vector<Has>& there) const {
    for (const auto& one : here) {
        if (to.part_in(one.part->layer) == nullptr) {
            return kUpcall;  // control makes the directory in that branch
        }
    }
    for (auto at = here.rbegin(); at != here.rend(); ++at) {
        const auto& one = *at;
        const int error =
            sys::rename_name(one.part->directory->descriptor(), name,
                             to.part_in(one.part->layer)->directory->descriptor(), new_name, 0);
        if (error != 0) {
            return error;
        }
    }
    std::vector<Has> replaced;
    for (const auto& one : there) {
        const auto same = [&](const Has& moved) { return moved.part->layer == one.part->layer; };
        if (std::ranges::none_of(here, same)) {
            replaced.push_back(one);
        }
    }
    set_changed(descriptor());
    set_changed(to.descriptor());
    return replaced.empty() ? 0 : to.drop(replaced, new_name, is_directory(replaced.front().found));
}

int PoolSource::At::rename(const char* name, const UnionDirectory& other, const char* new_name,
                           unsigned flags) const {
    if (is_reserved(new_name)) {
        return -EPERM;
    }
    if ((flags & ~unsigned{RENAME_NOREPLACE | RENAME_EXCHANGE}) != 0) {
        return -EINVAL;
    }
    const auto& to = static_cast<const At&>(other);
    const bool exchanges = (flags & RENAME_EXCHANGE) != 0;
    const std::lock_guard guard(source_->names_);
    std::vector<Has> here;
    std::vector<Has> there;
    int error = find_all(name, here);
    error = error == 0 ? to.find_all(new_name, there) : error;
    if (error != 0 || here.empty() || (exchanges && there.empty())) {
        return error != 0 ? error : -ENOENT;
    }
    if ((flags & RENAME_NOREPLACE) != 0 && !there.empty()) {
        return -EEXIST;
    }
    error = refused(Change::rename, name);
    if (error == 0 && !there.empty()) {
        error = to.refused(exchanges ? Change::rename : Change::remove, new_name);
    }
    if (error != 0) {
        return error;
    }
    if (exchanges) {
        return exchange(name, here, to, new_name, there);
    }
    if (!there.empty()) {
        const bool moves_directory = is_directory(here.front().found);
        if (here.front().found.identity == there.front().found.identity) {
            return 0;  // two names of one file
        }
        if (moves_directory != is_directory(there.front().found)) {
            return moves_directory ? -ENOTDIR : -EISDIR;
        }
        error = moves_directory ? to.check_empty(new_name) : 0;
    }
    return error == 0 ? move(name, here, to, new_name, there) : error;
}

std::shared_ptr<const PoolSource> PoolSource::make(Branches branches, const Refusals& refusals,
                                                   std::shared_ptr<Snapshots> snapshots) {
    if (branches.empty()) {
        throw std::system_error(EINVAL, std::generic_category(), "leasing no branch");
    }
    for (const auto& branch : branches) {
        if (branch->kind() != Kind::directory) {
            throw std::system_error(ENOTDIR, std::generic_category(), "leasing a branch");
        }
    }
    return std::shared_ptr<const PoolSource>(
        new PoolSource(std::move(branches), refusals, std::move(snapshots)));
}

namespace {

// A name has no slash.
std::string decision_of(PoolSource::Change change, const std::string& name) {
    return std::to_string(static_cast<int>(change)) + '/' + name;
}

}  // namespace

int PoolSource::refused(const Identity& directory, Change change, const std::string& name) const {
    if (const int error = refusals_.errnos[static_cast<std::size_t>(change)]; error != 0) {
        return -error;
    }
    return !refusals_.asks || permitted_.take(directory, decision_of(change, name)) ? 0 : kUpcall;
}

void PoolSource::permit(const Identity& directory, Change change,
                        const std::optional<std::string>& name,
                        std::optional<Placements::Milliseconds> valid) const {
    if (name) {
        permitted_.decide(directory, decision_of(change, *name), 0);
    } else {
        permitted_.lease(directory, 0, valid);
    }
}

SourceDirectory::Ref PoolSource::root() const {
    auto top = std::make_shared<At>(shared_from_this());
    for (std::size_t branch = 0; branch < branches_.size(); ++branch) {
        top->add(branch, branches_[branch]->root());
    }
    return top;
}

SourceDirectory::Ref PoolSource::adopt(sys::UniqueFd directory) const {
    auto adopted = std::make_shared<At>(shared_from_this());
    adopted->add(branches_.size() - 1, branches_.back()->adopt(std::move(directory)));
    return adopted;
}

int PoolSource::filesystem_status(struct ::statvfs& into) const {
    std::set<std::uint64_t> seen;
    for (const auto& branch : branches_) {
        if (!seen.insert(branch->volume(0).device).second) {
            continue;
        }
        struct ::statvfs one {};
        if (const int error = branch->filesystem_status(one); error != 0) {
            return error;
        }
        if (seen.size() == 1) {
            into = one;
            continue;
        }
        const auto blocks = [&](fsblkcnt_t count) { return count * one.f_frsize / into.f_frsize; };
        into.f_blocks += blocks(one.f_blocks);
        into.f_bfree += blocks(one.f_bfree);
        into.f_bavail += blocks(one.f_bavail);
        into.f_files += one.f_files;
        into.f_ffree += one.f_ffree;
        into.f_favail += one.f_favail;
    }
    return 0;
}

std::uint64_t PoolSource::shown_ino(const struct ::statx& status) const noexcept {
    const auto device = device_of(status);
    return device == branches_.back()->volume(0).device ? status.stx_ino
                                                        : mixed_ino(device, status.stx_ino);
}

// The links of a directory would be those of one branch; 1 says that they tell nothing.
void PoolSource::show(struct ::statx& status) const noexcept {
    status.stx_ino = shown_ino(status);
    if (S_ISDIR(status.stx_mode)) {
        status.stx_nlink = 1;
    }
}

}  // namespace zc
