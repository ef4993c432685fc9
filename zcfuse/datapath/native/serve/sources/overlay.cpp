#include "serve/sources/overlay.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <system_error>
#include <utility>

#include "serve/sources/merged_listing.hpp"
#include "sys/files.hpp"

namespace zc {

namespace {

std::atomic<std::uint64_t> last_number{0};

bool is_missing(int error) noexcept {
    return error == -ENOENT || error == -ENAMETOOLONG;
}

// Returns 1 or 0, or -errno. A file behind another mount counts as there.
int is_there(const SourceDirectory& directory, const std::string& name) {
    Found found;
    const int error = directory.find(name.c_str(), found);
    return is_missing(error) ? 0 : error < 0 ? error : 1;
}

int is_covered(const SourceDirectory& directory, const char* name) {
    return is_there(directory, whiteout_of(name));
}

// A metacopy of overlayfs is one hole.
bool may_be_metacopy(const Opened& opened) {
    return opened.extents.size() == 1 && opened.extents.front().length == kWholeFile &&
           sys::is_all_hole(opened.extents.front().file->get());
}

}  // namespace

class OverlaySource::At final : public SourceDirectory, public std::enable_shared_from_this<At> {
  public:
    explicit At(std::shared_ptr<const OverlaySource> source) noexcept
        : source_(std::move(source)) {}

    void add(std::size_t layer, Ref directory) { parts_.push_back({layer, std::move(directory)}); }

    int find(const char* name, Found& into) const override {
        if (*name == '\0') {
            return itself(into);
        }
        int error = -ENOENT;
        if (is_reserved(name)) {
            return error;
        }
        for (const auto& part : parts_) {
            error = part.directory->find(name, into);
            if (!is_missing(error)) {
                const int covered = is_covered_above(part, name);
                return covered < 0    ? covered
                       : covered == 1 ? -ENOENT
                                      : judge(part, name, error, into);
            }
        }
        return error;
    }

    // Name by name, because each layer may hide what those below it have.
    int enter(std::string_view path, Ref& into) const override {
        const At* above = this;
        std::shared_ptr<At> at;
        while (!path.empty()) {
            const std::string name(path.substr(0, path.find('/')));
            path.remove_prefix(std::min(name.size() + 1, path.size()));
            auto next = std::make_shared<At>(source_);
            if (const int error = above->step(name.c_str(), 0, *next); error != 0) {
                return error;
            }
            at = std::move(next);
            above = at.get();
        }
        into = std::move(at);
        return 0;
    }

    int status(const char* name, const Identity& wanted, struct ::statx& into) const override {
        const auto found = part_of(name, wanted);
        const int error = found.part == nullptr
                              ? -ESTALE
                              : found.part->directory->status(name, found.wanted, into);
        if (error == 0) {
            source_->show(*name == '\0' ? parts_.size() : 1, into);
        }
        return error;
    }

    int open(const char* name, const Identity& wanted, Opened& into) const override {
        const auto found = part_of(name, wanted);
        const int error =
            found.part == nullptr ? -ESTALE : found.part->directory->open(name, found.wanted, into);
        if (error != 0) {
            return error;
        }
        if (!source_->sees_trusted_ && may_be_metacopy(into)) {
            return kHandUp;
        }
        source_->show(1, into.status);
        return 0;
    }

    int reopen(const char* name, const Identity& wanted, struct ::statx& into) const override {
        const auto found = part_of(name, wanted);
        return found.part == nullptr ? -ESTALE
                                     : found.part->directory->reopen(name, found.wanted, into);
    }

    int read_link(const char* name, const Identity& wanted, std::string& into) const override {
        const auto found = part_of(name, wanted);
        return found.part == nullptr ? -ESTALE
                                     : found.part->directory->read_link(name, found.wanted, into);
    }

    int get_xattr(const char* name, const Identity& wanted, const char* attribute,
                  Bytes& into) const override {
        const auto found = part_of(name, wanted);
        const auto backing = backing_xattr(attribute);
        return found.part == nullptr
                   ? -ESTALE
                   : found.part->directory->get_xattr(name, found.wanted, backing.c_str(), into);
    }

    int list_xattrs(const char* name, const Identity& wanted, Bytes& into) const override {
        const auto found = part_of(name, wanted);
        const int error = found.part == nullptr
                              ? -ESTALE
                              : found.part->directory->list_xattrs(name, found.wanted, into);
        if (error == 0) {
            into.resize(shown_xattrs({reinterpret_cast<char*>(into.data()), into.size()}));
        }
        return error;
    }

    int list(std::unique_ptr<Listing>& into, std::vector<struct ::statx>& versions) const override {
        std::vector<ListedLayer> layers;
        for (const auto& part : parts_) {
            const bool fixed = source_->layers_[part.layer]->freshness() == Freshness::fixed;
            layers.push_back({part.directory, nullptr, fixed});
            if (const int error = part.directory->list(layers.back().names, versions); error != 0) {
                return error;
            }
        }
        // A change that is pushed must show in every look after it. A listing keeps no descriptor,
        // so it keeps no directory.
        LookInLayer look;
        if (source_->freshness() != Freshness::pushed) {
            look = [at = weak_from_this()](std::size_t part, const char* name, Found& found) {
                const auto directory = at.lock();
                return directory ? directory->find_in(part, name, found) : -ESTALE;
            };
        }
        into = merge_listings(std::move(layers), source_->snapshots_, source_->number_,
                              std::move(look));
        return 0;
    }

    // Of the topmost part.
    int marks(const char* name, Marks& into) const override {
        return parts_.front().directory->marks(name, into);
    }
    int descriptor() const noexcept override { return parts_.front().directory->descriptor(); }

  private:
    struct Part {
        std::size_t layer;
        Ref directory;
    };
    struct Wanted {
        const Part* part = nullptr;
        Identity wanted;  // as the layer has it
    };

    int find_in(std::size_t part, const char* name, Found& into) const {
        const int error = parts_[part].directory->find(name, into);
        return is_missing(error) ? error : judge(parts_[part], name, error, into);
    }

    int itself(Found& into) const {
        const int error = parts_.front().directory->find("", into);
        into.identity.lease += source_->first_[parts_.front().layer];
        source_->show(parts_.size(), into.status);
        return error;
    }

    // The part that a file is in; of the directory itself the topmost.
    Wanted part_of(const char* name, const Identity& wanted) const {
        for (const auto& part : parts_) {
            const auto first = source_->first_[part.layer];
            auto within = wanted;
            within.lease = wanted.lease - first;
            if (within.lease < source_->layers_[part.layer]->layers()) {
                return {&part, within};
            }
            if (*name == '\0') {
                break;
            }
        }
        return {};
    }

    // Judges a name by the topmost layer that has it; no layer above hides the name.
    int judge(const Part& part, const char* name, int error, Found& into) const {
        if (error != 0) {
            return error;
        }
        if (is_device_whiteout(into.status)) {
            return -ENOENT;
        }
        into.identity.lease += source_->first_[part.layer];
        std::size_t parts = 1;
        if (S_ISREG(into.status.stx_mode)) {
            error = judge_file(*part.directory, name, into.status);
        } else if (S_ISDIR(into.status.stx_mode)) {
            // Its parts say how many links it shows, and whether control has to be asked.
            At below(source_);
            error = step(name, static_cast<std::size_t>(&part - parts_.data()), below);
            parts = below.parts_.size();
        }
        if (error == 0) {
            source_->show(parts, into.status);
        }
        return error;
    }

    static int judge_file(const SourceDirectory& directory, const char* name,
                          const struct ::statx& status) {
        Marks marks;
        if (const int error = directory.marks(name, marks); error < 0) {
            return error;
        }
        if (marks.whiteout && status.stx_size == 0) {
            return -ENOENT;
        }
        return marks.metacopy ? kHandUp : 0;
    }

    // Whether a `.wh.` name in a layer above hides the part. Callers ask only after a layer had the
    // name, because most missing names are missing in all layers.
    int is_covered_above(const Part& part, const char* name) const {
        for (const auto* above = parts_.data(); above != &part; ++above) {
            if (const int covered = is_covered(*above->directory, name); covered != 0) {
                return covered;
            }
        }
        return 0;
    }

    // Opens the parts of the directory called `name`; no layer above the part `first` has it.
    int step(const char* name, std::size_t first, At& into) const {
        bool last = false;
        for (std::size_t i = first; i < parts_.size() && !last; ++i) {
            if (const int error = step_into(parts_[i], name, into, last); error != 0) {
                return error;
            }
        }
        return into.parts_.empty() ? -ENOENT : 0;
    }

    // Opens the part of one layer. Sets `last` where it hides the layers below.
    int step_into(const Part& part, const char* name, At& into, bool& last) const {
        Ref opened;
        int error = part.directory->enter(name, opened);
        if (is_missing(error)) {
            const bool lowest = &part == &parts_.back();
            const int covered = lowest ? 0 : is_covered(*part.directory, name);
            last = covered == 1;
            return covered < 0 ? covered : 0;
        }
        if (error == -ENOTDIR || error == -ELOOP) {
            last = true;  // a whiteout, or a file that is in the way
            return into.parts_.empty() ? -ENOTDIR : 0;
        }
        if (error == 0) {
            Found found;  // behind another mount it is control's
            error = opened->find("", found);
        }
        if (error == 0) {
            error = judge_directory(*part.directory, name, *opened, last);
        }
        if (error == 0) {
            into.add(part.layer, std::move(opened));
        }
        return error;
    }

    static int judge_directory(const SourceDirectory& above, const char* name,
                               const SourceDirectory& opened, bool& last) {
        Marks marks;
        if (const int error = above.marks(name, marks); error < 0) {
            return error;
        }
        const int covered = marks.opaque ? 1 : is_there(opened, kOpaqueName);
        const int whiteout = covered == 0 ? is_covered(above, name) : covered;
        if (whiteout < 0) {
            return whiteout;
        }
        last = whiteout == 1;
        return marks.redirect && !marks.opaque ? kHandUp : 0;
    }

    const std::shared_ptr<const OverlaySource> source_;
    std::vector<Part> parts_;  // the topmost first
};

OverlaySource::OverlaySource(Layers layers, bool sees_trusted, std::shared_ptr<Snapshots> snapshots)
    : layers_(std::move(layers)),
      sees_trusted_(sees_trusted),
      snapshots_(std::move(snapshots)),
      number_(++last_number) {
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
        freshness = one == Freshness::pushed ? one : freshness;
    }
    return freshness;
}

void OverlaySource::add_real(std::uint32_t first, std::vector<Real>& into) const {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        layers_[i]->add_real(first + first_[i], into);
    }
}

void OverlaySource::set_pushed() const noexcept {
    for (const auto& layer : layers_) {
        layer->set_pushed();
    }
}

std::shared_ptr<const OverlaySource> OverlaySource::make(Layers layers, bool sees_trusted,
                                                         std::shared_ptr<Snapshots> snapshots) {
    if (layers.empty()) {
        throw std::system_error(EINVAL, std::generic_category(), "leasing no layer");
    }
    return std::shared_ptr<const OverlaySource>(
        new OverlaySource(std::move(layers), sees_trusted, std::move(snapshots)));
}

SourceDirectory::Ref OverlaySource::root() const {
    auto top = std::make_shared<At>(shared_from_this());
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
        top->add(layer, layers_[layer]->root());
    }
    return top;
}

int OverlaySource::filesystem_status(struct ::statvfs& into) const {
    return layers_.front()->filesystem_status(into);
}

// A source without a device makes numbers that no filesystem uses.
std::uint64_t OverlaySource::shown_ino(const struct ::statx& status) const noexcept {
    const auto device = device_of(status);
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
