// How clients change a union: as fs/overlayfs/dir.c does with the default options of overlayfs, or
// with redirect_dir=on.
//
// A removal or a rename may race with the copying of the same file, which takes no lock until the
// copy gets its name; then that name is taken or shows another file, and the copy is dropped.
#include <fcntl.h>
#include <stdio.h>

#include <cerrno>
#include <string>
#include <utility>

#include "serve/sources/overlay_at.hpp"
#include "sys/changes.hpp"
#include "sys/files.hpp"

namespace zc {

namespace {

constexpr std::size_t kLongestRedirectPath = 256;  // overlayfs's redirect_max

// A redirect or a metacopy that is not followed is not changed.
int or_refused(int error) noexcept {
    return error == kUpcall ? -EXDEV : error;
}

bool is_directory(const Found& found) noexcept {
    return S_ISDIR(found.status.stx_mode);
}

}  // namespace

int OverlaySource::At::has_whiteout(const char* name) const {
    Found found;
    const int error = parts_.front().directory->find(name, found);
    if (error != 0) {
        return means_missing(error) ? 0 : or_refused(error);
    }
    const int judged = judge(parts_.front(), name, error, found);
    return judged < 0 && !means_missing(judged) ? judged : means_missing(judged) ? 1 : 0;
}

int OverlaySource::At::is_below(const char* name) const {
    Found found;
    const int error = find_from(1, name, found);
    return means_missing(error) ? 0 : error < 0 ? error : 1;
}

int OverlaySource::At::is_pure(const char* name) const {
    At inside(source_);
    const int error = step(name, 0, inside);
    return error != 0 ? or_refused(error) : inside.is_raised() && !inside.is_merged();
}

int OverlaySource::At::is_empty(const char* name) const {
    const auto inside = std::make_shared<At>(source_);
    bool has = false;
    int error = step(name, 0, *inside);
    error = error == 0 ? has_entries(*inside, has) : error;
    return error != 0 ? or_refused(error) : has ? 0 : 1;
}

int OverlaySource::At::raise(const char* name) const {
    At inside(source_);
    if (const int error = step(name, 0, inside); error != 0) {
        return error;
    }
    if (inside.is_raised()) {
        return 0;
    }
    Found found;
    const auto& top = *inside.parts_.front().directory;
    int error = top.find("", found);
    if (error == 0) {
        error = source_->upper_->copy_directory({top, "", found.identity}, descriptor(), name);
    }
    return error == -EEXIST ? 0 : error;
}

// The kernel finds bytes in directories alone. An empty file has none.
bool OverlaySource::At::may_lack_bytes(const Part& part, const Found& found) const {
    return source_->makes_metacopies() && source_->layers_[part.layer]->kind() == Kind::directory &&
           S_ISREG(found.status.stx_mode) && found.status.stx_size > 0;
}

int OverlaySource::At::copy_up(const char* name, const Identity& wanted, CopiedBytes bytes,
                               Copied& into) const {
    const auto part = part_of(name, wanted);
    if (part.part == nullptr) {
        return -ESTALE;
    }
    into = {wanted};
    const bool later = bytes == CopiedBytes::later && source_->makes_metacopies();
    if (part.part->layer == 0 && (!part.metacopy || later)) {
        return 0;
    }
    Found found;
    int error = find(name, found);
    if (error != 0 || found.identity != wanted) {
        return error != 0 && !means_missing(error) ? error : -ESTALE;
    }
    Opened opened;
    const bool lacks_bytes = later && may_lack_bytes(*part.part, found);
    const bool takes_bytes =
        S_ISREG(found.status.stx_mode) && bytes != CopiedBytes::none && !lacks_bytes;
    error = takes_bytes ? open(name, wanted, opened) : 0;
    if (error == 0) {
        const CopyPlace to{*parts_.front().directory, name,       wanted, found.status.stx_ino,
                           part.part->layer == 0,     lacks_bytes};
        error = source_->upper_->copy_file({*part.part->directory, name, part.wanted},
                                           opened.extents, to, into.record);
    }
    if (error != 0) {
        return error == -EEXIST ? -ESTALE : error;
    }
    error = find(name, found);
    into.identity = found.identity;
    return means_missing(error) ? -ESTALE : error;
}

int OverlaySource::At::begin_making(const char* name, Making& into) const {
    if (is_reserved(name)) {
        return -EPERM;
    }
    into.lock = source_->upper_->lock();
    Found found;
    if (const int error = find(name, found); !means_missing(error)) {
        return error < 0 ? error : -EEXIST;
    }
    const int hidden = has_whiteout(name);
    if (hidden < 0) {
        return hidden;
    }
    into.name = name;
    into.directory = descriptor();
    if (hidden == 1) {
        const int error = source_->upper_->make_nursery(descriptor(), into);
        into.directory = into.nursery.get();
        return error;
    }
    return 0;
}

int OverlaySource::At::finish_making(Making& making, bool is_directory, int made) const {
    const auto& upper = *source_->upper_;
    const bool in_nursery = !making.nursery_name.empty();
    int error = made;
    // What the layers below have, or may have later, is not the new directory's.
    if (error == 0 && is_directory && (in_nursery || is_merged())) {
        error = upper.set_opaque(making.directory, making.name);
    }
    if (error == 0 && in_nursery) {
        error = sys::rename_name(making.directory, making.name, descriptor(), making.name,
                                 is_directory ? RENAME_EXCHANGE : 0);
    }
    upper.drop_nursery(making);
    return error;
}

int OverlaySource::At::complete_directory(const char* name) const {
    const auto guard = source_->upper_->lock();
    return is_merged() ? source_->upper_->set_opaque(descriptor(), name) : 0;
}

int OverlaySource::At::link(int file, const Identity&, const char* name) const {
    if (is_reserved(name)) {
        return -EPERM;
    }
    const auto& upper = *source_->upper_;
    const auto guard = upper.lock();
    Found found;
    if (const int error = find(name, found); !means_missing(error)) {
        return error < 0 ? error : -EEXIST;
    }
    const int hidden = has_whiteout(name);
    return hidden < 0    ? hidden
           : hidden == 1 ? upper.link_over_whiteout(file, descriptor(), name)
                         : sys::make_link(file, descriptor(), name);
}

int OverlaySource::At::remove(const char* name, bool removes_directory) const {
    const auto& upper = *source_->upper_;
    const auto guard = upper.lock();
    Found found;
    if (const int error = find(name, found); error != 0) {
        return or_refused(error);
    }
    if (is_directory(found) != removes_directory) {
        return removes_directory ? -ENOTDIR : -EISDIR;
    }
    if (removes_directory) {
        if (const int empty = is_empty(name); empty <= 0) {
            return empty < 0 ? empty : -ENOTEMPTY;
        }
    }
    Found above;
    const int error = parts_.front().directory->find(name, above);
    if (error != 0 && !means_missing(error)) {
        return or_refused(error);
    }
    const int below = is_below(name);
    if (below < 0) {
        return below;
    }
    if (below == 1) {
        return error == 0 ? upper.replace_by_whiteout(descriptor(), name, removes_directory)
                          : UpperLayer::cover(descriptor(), name);
    }
    return removes_directory ? upper.remove_directory(descriptor(), name)
                             : sys::remove_name(descriptor(), name, false);
}

int OverlaySource::At::look(Moving& moving) const {
    int error = find(moving.name, moving.found);
    moving.is_there = error == 0;
    if (error != 0 && !means_missing(error)) {
        return or_refused(error);
    }
    error = is_below(moving.name);
    moving.is_covering = error == 1;
    if (error < 0) {
        return error;
    }
    error = has_whiteout(moving.name);
    moving.is_whiteout = error == 1;
    return error < 0 ? error : 0;
}

int OverlaySource::At::check_move(const Moving& from, const Moving& to, unsigned flags) const {
    const bool exchanges = (flags & RENAME_EXCHANGE) != 0;
    if (!from.is_there || (exchanges && !to.is_there)) {
        return -ENOENT;
    }
    if ((flags & RENAME_NOREPLACE) != 0 && to.is_there) {
        return -EEXIST;
    }
    for (const auto* one : {&from, &to}) {
        const bool moves = one == &from || exchanges;
        const int pure = moves && is_directory(one->found) ? one->at.is_pure(one->name) : 1;
        if (pure < 0 || (pure == 0 && !source_->makes_redirects())) {
            return pure < 0 ? pure : -EXDEV;
        }
    }
    if (exchanges || !to.is_there) {
        return 0;
    }
    if (is_directory(from.found) != is_directory(to.found)) {
        return is_directory(from.found) ? -ENOTDIR : -EISDIR;
    }
    const int empty = is_directory(to.found) ? to.at.is_empty(to.name) : 1;
    return empty < 0 ? empty : empty == 0 ? -ENOTEMPTY : 0;
}

bool OverlaySource::At::is_same(const At& other) const {
    Found one;
    Found two;
    return itself(one) == 0 && other.itself(two) == 0 && one.identity == two.identity;
}

// A name suffices while the directory stays where it is. An earlier redirect leads there already.
int OverlaySource::At::redirect(const char* name, bool stays) const {
    At inside(source_);
    if (const int error = step(name, 0, inside); error != 0) {
        return or_refused(error);
    }
    if (!inside.is_raised()) {
        return -ESTALE;  // another change came first
    }
    const auto& earlier = inside.redirect_;
    if (!earlier.empty() && (stays || earlier.front() == '/')) {
        return 0;
    }
    const std::string leads_to = stays ? name : inside.below_;
    const bool is_too_long = !stays && leads_to.size() > kLongestRedirectPath;
    const int error = is_too_long ? -EXDEV : UpperLayer::set_redirect(descriptor(), name, leads_to);
    return error == 0 ? 0 : -EXDEV;  // clients can copy it
}

// A directory that comes below a merged one must not show what lies there under its new name, and
// must go on showing what lies in the layers below under the old one.
int OverlaySource::At::prepare_directory(const Moving& moving, const At& into) const {
    const int pure = is_directory(moving.found) ? is_pure(moving.name) : 1;
    if (pure <= 0) {
        return pure < 0 ? pure : redirect(moving.name, is_same(into));
    }
    return is_directory(moving.found) && into.is_merged()
               ? source_->upper_->set_opaque(descriptor(), moving.name)
               : 0;
}

int OverlaySource::At::prepare_move(const Moving& from, const Moving& to, bool exchanges) const {
    int error = from.at.prepare_directory(from, to.at);
    if (error == 0 && exchanges) {
        error = to.at.prepare_directory(to, from.at);
    }
    if (error != 0 || exchanges || !to.is_there || !is_directory(to.found)) {
        return error;
    }
    Found above;
    const int there = to.at.parts_.front().directory->find(to.name, above);
    return there == 0 ? source_->upper_->empty(to.at.descriptor(), to.name) : 0;
}

int OverlaySource::At::move(const Moving& from, const Moving& to, unsigned flags) const {
    if ((flags & RENAME_EXCHANGE) != 0) {
        return sys::rename_name(from.at.descriptor(), from.name, to.at.descriptor(), to.name,
                                RENAME_EXCHANGE);
    }
    // The whiteout in its way serves to cover the old name, or is in the way of a directory.
    const bool swaps = to.is_whiteout && (from.is_covering || is_directory(from.found));
    const unsigned how = swaps ? RENAME_EXCHANGE : from.is_covering ? RENAME_WHITEOUT : 0;
    const int error =
        sys::rename_name(from.at.descriptor(), from.name, to.at.descriptor(), to.name, how);
    if (error == 0 && swaps && !from.is_covering) {
        sys::remove_name(from.at.descriptor(), from.name, false);
    }
    return error;
}

int OverlaySource::At::rename(const char* name, const UnionDirectory& other, const char* new_name,
                              unsigned flags) const {
    if (is_reserved(new_name)) {
        return -EPERM;
    }
    const auto guard = source_->upper_->lock();
    Moving from{*this, name};
    Moving to{static_cast<const At&>(other), new_name};
    int error = look(from);
    error = error == 0 ? to.at.look(to) : error;
    if (error != 0 || (from.is_there && to.is_there && from.found.identity == to.found.identity)) {
        return error;  // two names of one file: nothing is to be done
    }
    constexpr unsigned kNoReplace = RENAME_NOREPLACE;
    if ((flags & ~(kNoReplace | RENAME_EXCHANGE)) != 0) {
        return -EINVAL;
    }
    error = check_move(from, to, flags);
    error = error == 0 ? prepare_move(from, to, (flags & RENAME_EXCHANGE) != 0) : error;
    return error == 0 ? move(from, to, flags & ~kNoReplace) : error;
}

}  // namespace zc
