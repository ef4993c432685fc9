#include "serve/sources/overlay.hpp"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "serve/sources/merged_listing.hpp"
#include "serve/sources/overlay_at.hpp"
#include "sys/files.hpp"

namespace zc {

namespace {

// A metacopy of overlayfs is one hole.
bool may_be_metacopy(const Opened& opened) {
    return opened.extents.size() == 1 && opened.extents.front().length == kWholeFile &&
           sys::is_all_hole(opened.extents.front().file->get());
}

// The file that has the attributes of a metacopy, and the bytes, answer while it is open.
class OpenMetacopy final : public OpenStatus {
  public:
    OpenMetacopy(std::shared_ptr<const OverlaySource> source, sys::UniqueFd top) noexcept
        : source_(std::move(source)), top_(std::move(top)) {}

    int status(const FileLease& lease, struct ::statx& into) const override {
        struct ::statx data {};
        int error = sys::status_of(top_.get(), "", false, into);
        if (const auto* file = lease.whole_file(); error == 0 && file != nullptr) {
            error = sys::status_of(file->get(), "", false, data);
            into.stx_blocks = data.stx_blocks;
        }
        into.stx_ino = source_->shown_ino(into);
        return error;
    }

  private:
    const std::shared_ptr<const OverlaySource> source_;
    const sys::UniqueFd top_;
};

}  // namespace

int OverlaySource::At::find_from(std::size_t first, const char* name, Found& into) const {
    if (*name == '\0') {
        return itself(into);
    }
    if (is_reserved(name)) {
        return -ENOENT;
    }
    std::size_t part = 0;
    const int error = find_topmost(parts_, first, name, part, into);
    return error != 0 ? error : judge(parts_[part], name, error, into);
}

// Name by name, because each layer may hide what those below it have.
int OverlaySource::At::enter(std::string_view path, Ref& into) const {
    auto at = shared_from_this();
    const int error = for_each_name(path, [&](std::string_view name) {
        auto next = std::make_shared<At>(source_);
        const int missing = at->step(std::string(name).c_str(), 0, *next);
        at = std::move(next);
        return missing;
    });
    if (error == 0) {
        into = std::move(at);
    }
    return error;
}

int OverlaySource::At::status(const char* name, const Identity& wanted,
                              struct ::statx& into) const {
    const auto found = part_of(name, wanted);
    if (found.metacopy) {
        Found shown;
        DataFile data;
        const int error = look_at_metacopy(name, wanted, shown, data);
        into = shown.status;
        return error;
    }
    const int error =
        found.part == nullptr ? -ESTALE : found.part->directory->status(name, found.wanted, into);
    if (error != 0) {
        return error;
    }
    source_->show(*name == '\0' ? parts_.size() : 1, into);
    if (*name == '\0' && &origin() != &parts_.front()) {
        Found shown;  // a copy keeps the number of what it is a copy of
        if (const int looked = itself(shown); looked != 0) {
            return looked;
        }
        into.stx_ino = shown.status.stx_ino;
    }
    return 0;
}

int OverlaySource::At::open(const char* name, const Identity& wanted, Opened& into) const {
    const auto found = part_of(name, wanted);
    if (found.metacopy) {
        return open_metacopy(found, name, wanted, into);
    }
    const int error =
        found.part == nullptr ? -ESTALE : found.part->directory->open(name, found.wanted, into);
    if (error != 0) {
        return error;
    }
    if (!source_->sees_trusted_ && may_be_metacopy(into)) {
        return kUpcall;
    }
    source_->show(1, into.status);
    return 0;
}

int OverlaySource::At::reopen(const char* name, const Identity& wanted,
                              struct ::statx& into) const {
    const auto found = part_of(name, wanted);
    if (found.metacopy) {
        Found shown;
        DataFile data;
        const int error = look_at_metacopy(name, wanted, shown, data);
        into = data.found.status;
        return error;
    }
    return found.part == nullptr ? -ESTALE
                                 : found.part->directory->reopen(name, found.wanted, into);
}

int OverlaySource::At::read_link(const char* name, const Identity& wanted,
                                 std::string& into) const {
    const auto found = part_of(name, wanted);
    return found.part == nullptr ? -ESTALE
                                 : found.part->directory->read_link(name, found.wanted, into);
}

int OverlaySource::At::get_xattr(const char* name, const Identity& wanted, const char* attribute,
                                 Bytes& into) const {
    const auto found = part_of(name, wanted);
    const auto backing = backing_xattr(attribute);
    return found.part == nullptr
               ? -ESTALE
               : found.part->directory->get_xattr(name, found.wanted, backing.c_str(), into);
}

int OverlaySource::At::list_xattrs(const char* name, const Identity& wanted, Bytes& into) const {
    const auto found = part_of(name, wanted);
    const int error = found.part == nullptr
                          ? -ESTALE
                          : found.part->directory->list_xattrs(name, found.wanted, into);
    if (error == 0) {
        into.resize(shown_xattrs({reinterpret_cast<char*>(into.data()), into.size()}));
    }
    return error;
}

int OverlaySource::At::hold(const char* name, const Identity& wanted, int flags,
                            sys::UniqueFd& into, struct ::statx& status) const {
    const auto found = part_of(name, wanted);
    if (found.part == nullptr) {
        return -ESTALE;
    }
    const bool writes = (flags & O_PATH) == 0 && (flags & O_ACCMODE) != O_RDONLY;
    if (writes && (found.part->layer != 0 || found.metacopy)) {
        return -EROFS;
    }
    const int error = found.part->directory->hold(name, found.wanted, flags, into, status);
    if (error == 0) {
        source_->show(*name == '\0' ? parts_.size() : 1, status);
    }
    return error;
}

int OverlaySource::At::identify(int file, const char* name, Found& into) const {
    const int error = parts_.front().directory->identify(file, name, into);
    into.identity.lease += source_->first_[parts_.front().layer];
    source_->show(1, into.status);
    return error;
}

int OverlaySource::At::list(std::unique_ptr<Listing>& into,
                            std::vector<struct ::statx>& versions) const {
    std::vector<ListedLayer> layers;
    for (const auto& part : parts_) {
        const bool fixed = source_->layers_[part.layer]->freshness() == Freshness::fixed;
        std::unique_ptr<Listing> names;
        if (const int error = part.directory->list(names, versions); error != 0) {
            return error;
        }
        layers.push_back({part.directory, is_merged() ? nullptr : std::move(names), fixed});
    }
    // A change that is pushed must show in every look after it. A listing keeps no descriptor,
    // so it keeps no directory.
    LookInLayer look;
    if (!reports_names(source_->freshness())) {
        look = [at = weak_from_this()](std::size_t part, const char* name, Found& found) {
            const auto directory = at.lock();
            return directory ? directory->find_in(part, name, found) : -ESTALE;
        };
    }
    into =
        merge_listings(std::move(layers), source_->snapshots_, source_->number_, std::move(look));
    return 0;
}

int OverlaySource::At::find_in(std::size_t part, const char* name, Found& into) const {
    const int error = parts_[part].directory->find(name, into);
    return means_missing(error) ? error : judge(parts_[part], name, error, into);
}

int OverlaySource::At::itself(Found& into) const {
    int error = parts_.front().directory->find("", into);
    const auto& shown = origin();
    source_->show(parts_.size(), into.status);
    if (error == 0 && &shown != &parts_.front()) {
        Found below;
        error = shown.directory->find("", below);
        into.identity = below.identity;
        into.status.stx_ino = source_->shown_ino(below.status);
    }
    into.identity.lease += source_->first_[shown.layer];
    return error;
}

// The part that a file is in; of the directory itself the topmost, if it still is that directory.
OverlaySource::At::LayerFile OverlaySource::At::part_of(const char* name,
                                                        const Identity& wanted) const {
    if (*name == '\0' && &origin() != &parts_.front()) {
        Found shown;
        Found top;
        const bool same = itself(shown) == 0 && shown.identity == wanted &&
                          parts_.front().directory->find("", top) == 0;
        return same ? LayerFile{&parts_.front(), top.identity, false} : LayerFile{};
    }
    for (const auto& part : parts_) {
        const auto first = source_->first_[part.layer];
        auto within = wanted;
        within.lease = wanted.lease - first;
        within.type &= ~kMetacopyType;
        if (within.lease < source_->layers_[part.layer]->layers()) {
            return {&part, within, is_metacopy(wanted)};
        }
        if (*name == '\0') {
            break;
        }
    }
    return {};
}

// Judges a name by the topmost layer that has it; no layer above hides the name.
int OverlaySource::At::judge(const Part& part, const char* name, int error, Found& into) const {
    if (error != 0) {
        return error;
    }
    if (is_device_whiteout(into.status)) {
        return -ENOENT;
    }
    into.identity.lease += source_->first_[part.layer];
    std::size_t parts = 1;
    if (S_ISREG(into.status.stx_mode)) {
        error = judge_file(part, name, into);
    } else if (S_ISDIR(into.status.stx_mode)) {
        // Its parts say how many links it shows, and whether control has to be asked.
        At below(source_);
        below.keep_open(2);
        error = step(name, static_cast<std::size_t>(&part - parts_.data()), below);
        if (error == 0 && &below.origin() != &below.parts_.front()) {
            return below.itself(into);
        }
        parts = below.parts_.size();
    }
    if (error == 0) {
        source_->show(parts, into.status);
    }
    return error;
}

// Opens the parts of the directory called `name`; no layer above the part `first` has it.
int OverlaySource::At::step(const char* name, std::size_t first, At& into) const {
    auto search = this->search(name);
    const int error =
        search.find_directory(std::span(parts_).subspan(first), into.kept_, into.parts_);
    const bool from_upper = error == 0 && into.is_raised();
    into.redirect_ = from_upper ? search.top_redirect() : "";
    if (source_->redirects_) {
        const bool is_path = into.redirect_.starts_with('/');
        into.below_ = is_path ? into.redirect_
                              : below_ + "/" + (into.redirect_.empty() ? name : into.redirect_);
    }
    return error;
}

OverlaySearch OverlaySource::At::search(const char* name) const {
    return {[source = source_.get()](std::size_t layer) { return source->roots_below(layer); },
            source_->follows(), name};
}

int OverlaySource::At::judge_file(const Part& part, const char* name, Found& into) const {
    Marks marks;
    int error = read_file_marks(part, name, into, marks);
    if (error != 0 || !marks.metacopy) {
        return error;
    }
    DataFile data;
    error = search(name).find_data(parts_from(part), marks, data);
    if (error == 0) {
        into.identity.type |= kMetacopyType;
        into.status.stx_blocks = data.found.status.stx_blocks;
    }
    return error;
}

// A metacopy is another file once its bytes lie in it.
int OverlaySource::At::look_at_metacopy(const char* name, const Identity& wanted, Found& into,
                                        DataFile& data) const {
    const auto found = part_of(name, wanted);
    Marks marks;
    int error = found.part == nullptr ? -ESTALE : found.part->directory->find(name, into);
    error = error == 0 && into.identity != found.wanted ? -ESTALE : error;
    error = error == 0 ? found.part->directory->marks(name, marks) : error;
    error = error == 0 && !marks.metacopy ? -ESTALE : error;
    error = error == 0 ? search(name).find_data(parts_from(*found.part), marks, data) : error;
    if (error == 0) {
        into.status.stx_blocks = data.found.status.stx_blocks;
        source_->show(1, into.status);
    }
    return error;
}

// The status is that of the file with the bytes: its mtime changes with them.
int OverlaySource::At::open_metacopy(const LayerFile& found, const char* name,
                                     const Identity& wanted, Opened& into) const {
    Found top;
    DataFile data;
    sys::UniqueFd file;
    struct ::statx status {};
    int error = look_at_metacopy(name, wanted, top, data);
    error =
        error == 0 ? found.part->directory->hold(name, found.wanted, O_PATH, file, status) : error;
    error = error == 0 ? data.directory->open(data.name.c_str(), data.found.identity, into) : error;
    if (error == 0) {
        into.shown = std::make_shared<const OpenMetacopy>(source_, std::move(file));
    }
    return error;
}

OverlaySource::OverlaySource(Layers layers, bool sees_trusted, std::shared_ptr<Snapshots> snapshots,
                             OverlayChanges changes)
    : layers_(std::move(layers)),
      sees_trusted_(sees_trusted),
      snapshots_(std::move(snapshots)),
      upper_(changes.work ? std::make_unique<const UpperLayer>(
                                std::move(changes.work), sees_trusted, std::move(changes.memory))
                          : nullptr),
      metacopies_(changes.metacopies && sees_trusted),
      redirects_(changes.redirects && sees_trusted),
      number_(Snapshots::next_source()) {
    home_ = layers_.front()->volume(0).device;
    for (const auto& layer : layers_) {
        first_.push_back(count_);
        count_ += layer->layers();
        descriptors_ += layer->descriptors();
        bytes_ += layer->bytes();
    }
}

// Its answers hold for as long as those of the layer that is worst off.
Freshness OverlaySource::worst(Freshness (Source::*of)() const noexcept) const noexcept {
    auto freshness = Freshness::fixed;
    for (const auto& layer : layers_) {
        const auto one = (layer.get()->*of)();
        if (one == Freshness::timed) {
            return one;
        }
        freshness = one != Freshness::fixed ? one : freshness;
    }
    return freshness;
}

void OverlaySource::add_real(std::uint32_t first, std::vector<Real>& into) const {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        layers_[i]->add_real(first + first_[i], into);
    }
}

void OverlaySource::set_pushed(Freshness how) const noexcept {
    for (const auto& layer : layers_) {
        layer->set_pushed(how);
    }
}

OverlaySource::~OverlaySource() = default;

std::shared_ptr<const OverlaySource> OverlaySource::make(Layers layers, bool sees_trusted,
                                                         std::shared_ptr<Snapshots> snapshots,
                                                         OverlayChanges changes) {
    if (layers.empty()) {
        throw std::system_error(EINVAL, std::generic_category(), "leasing no layer");
    }
    if (changes.work && layers.front()->kind() != Kind::directory) {
        throw std::system_error(ENOTDIR, std::generic_category(), "leasing an upper layer");
    }
    return std::shared_ptr<const OverlaySource>(new OverlaySource(
        std::move(layers), sees_trusted, std::move(snapshots), std::move(changes)));
}

SourceDirectory::Ref OverlaySource::adopt(sys::UniqueFd directory) const {
    if (!upper_) {
        return nullptr;
    }
    auto adopted = std::make_shared<At>(shared_from_this());
    adopted->add(0, layers_.front()->adopt(std::move(directory)));
    return adopted;
}

SourceDirectory::Ref OverlaySource::root() const {
    auto top = std::make_shared<At>(shared_from_this());
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
        top->add(layer, layers_[layer]->root());
    }
    return top;
}

std::vector<LayerPart> OverlaySource::roots_below(std::size_t layer) const {
    std::vector<LayerPart> roots;
    while (++layer < layers_.size()) {
        roots.push_back({layer, layers_[layer]->root()});
    }
    return roots;
}

int OverlaySource::filesystem_status(struct ::statvfs& into) const {
    return layers_.front()->filesystem_status(into);
}

// A source without a device makes numbers that no filesystem uses.
std::uint64_t OverlaySource::shown_ino(const struct ::statx& status) const noexcept {
    const auto device = device_of(status);
    const auto number = upper_ && device == home_ ? upper_->number_of(status) : 0;
    if (number != 0) {
        return number;
    }
    const bool as_it_is = device == home_ || device == 0;
    return as_it_is ? status.stx_ino : mixed_ino(device, status.stx_ino);
}

Source::Volume OverlaySource::volume(std::uint32_t layer) const {
    for (std::size_t i = layers_.size(); i-- > 0;) {
        if (layer >= first_[i]) {
            return layers_[i]->volume(layer - first_[i]);
        }
    }
    return {};
}

// A merged directory's links would be those of one layer; 1 says that they tell nothing.
void OverlaySource::show(std::size_t parts, struct ::statx& status) const noexcept {
    status.stx_ino = shown_ino(status);
    if (parts > 1) {
        status.stx_nlink = 1;
    }
}

}  // namespace zc
