#include "serve/sources/merged_listing.hpp"

#include <dirent.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <new>
#include <string>
#include <utility>

#include "serve/sources/name_set.hpp"
#include "sys/files.hpp"

namespace zc {

namespace {

constexpr std::int64_t kTrustedMs = 1000;

bool is_whiteout(const SourceDirectory& directory, const Listing::Entry& entry) {
    Found found;
    return (entry.type == DT_CHR || entry.type == DT_UNKNOWN) &&
           directory.find(entry.name, found) == 0 && is_device_whiteout(found.status);
}

class OneLayer final : public Listing {
  public:
    explicit OneLayer(ListedLayer layer) noexcept : layer_(std::move(layer)) {}

    int seek(std::uint64_t position) override {
        const int error = layer_.names->seek(position);
        position_ = layer_.names->position();
        return error;
    }
    int peek(Entry& into) override {
        for (;;) {
            const int found = layer_.names->peek(into);
            const bool hidden =
                found == 1 && (is_reserved(into.text()) || is_whiteout(*layer_.directory, into));
            if (!hidden) {
                return found;
            }
            skip();
        }
    }
    void skip() override {
        layer_.names->skip();
        position_ = layer_.names->position();
    }

  private:
    const ListedLayer layer_;
};

// One pass over the layers of a directory, the topmost first.
class Pass {
  public:
    Pass(const std::vector<ListedLayer>& layers, std::size_t most) : layers_(layers), left_(most) {}

    // 0, -errno, or Listing::kTooLong after more entries than allowed.
    int run() {
        for (const auto& layer : layers_) {
            if (const int error = read(layer, &layer == &layers_.back()); error != 0) {
                return error;
            }
            if (number_ < Snapshot::kAnyLayer) {
                ++number_;
            }
        }
        return 0;
    }
    Snapshot take() {
        Snapshot made{std::move(names_), taken_.take_text(), nullptr};
        made.names.shrink_to_fit();
        made.text.shrink_to_fit();
        return made;
    }

  private:
    // The names of the lowest layer hide nothing, so they need no place in `taken_`.
    int read(const ListedLayer& layer, bool lowest) {
        std::vector<std::string> covered;  // by a `.wh.` name: in the layers below its own
        // Open for this pass: all layers at once would take as many descriptors.
        std::unique_ptr<Listing> names;
        std::vector<struct ::statx> statuses;
        int more = layer.directory->list(names, statuses);
        if (more != 0 || (more = names->seek(0)) < 0) {
            return more;
        }
        Listing::Entry entry;
        for (; (more = names->peek(entry)) == 1; names->skip()) {
            if (left_-- == 0) {
                return Listing::kTooLong;
            }
            const auto name = entry.text();
            if (is_reserved(name)) {
                if (!lowest) {
                    covered.emplace_back(name.substr(whiteout_of("").size()));
                }
            } else if (!taken_.contains(name) && !add(layer, entry, lowest)) {
                return -EOVERFLOW;
            }
        }
        for (const auto& name : covered) {
            const auto start = taken_.append(name);
            if (!start) {
                return -EOVERFLOW;
            }
            taken_.insert(*start, name.size());
        }
        return more;
    }

    bool add(const ListedLayer& layer, const Listing::Entry& entry, bool lowest) {
        const bool hidden = is_whiteout(*layer.directory, entry);
        if (hidden && lowest) {
            return true;
        }
        const auto start = taken_.append(entry.text());
        if (!start) {
            return false;
        }
        if (!hidden) {
            names_.push_back(
                {entry.ino, *start, static_cast<std::uint16_t>(entry.length), entry.type, number_});
        }
        if (!lowest) {
            taken_.insert(*start, entry.length);
        }
        return true;
    }

    const std::vector<ListedLayer>& layers_;
    std::size_t left_;         // entries
    std::uint8_t number_ = 0;  // of the layer at hand
    std::vector<Snapshot::Name> names_;
    NameSet taken_;  // what the layers so far have, or have taken away
};

class Merged final : public Listing {
  public:
    Merged(std::vector<ListedLayer> layers, std::shared_ptr<Snapshots> snapshots,
           std::uint64_t source, LookInLayer look)
        : layers_(std::move(layers)),
          snapshots_(std::move(snapshots)),
          source_(source),
          look_(std::move(look)) {}

    bool must_gather(std::uint64_t position) const noexcept override {
        return !snapshot_ || (position == 0 && !fresh_);
    }

    int gather(Effort effort, std::uint32_t uid) override {
        gathered_ms_ = sys::coarse_milliseconds();
        const bool admitted = snapshots_->admits(uid);
        if (effort == Effort::little && admitted) {
            if (const int error = pass(kLittle, uid, nullptr); error != kTooLong) {
                return error;
            }
        }
        Snapshots::Version version;
        bool told = false;  // whether each change shows in the version
        if (const int error = begin(version, told); error != 0) {
            return error;
        }
        if (auto found = told ? snapshots_->find(version, uid) : HeldSnapshot()) {
            use(std::move(found));
            return 0;
        }
        if (!admitted) {
            snapshots_->refused();
            return -ENOMEM;
        }
        return effort == Effort::little
                   ? kTooLong
                   : pass(std::numeric_limits<std::size_t>::max(), uid, told ? &version : nullptr);
    }

    int seek(std::uint64_t position) override {
        const int error = must_gather(position) ? gather(Effort::all, 0) : 0;
        position_ = error == 0 ? position : position_;
        return error;
    }

    int peek(Entry& into) override {
        if (position_ >= snapshot_->names.size()) {
            return 0;
        }
        const auto& name = snapshot_->names[position_];
        into = {name.ino, position_ + 1, name.type, snapshot_->text.data() + name.start,
                name.length};
        return 1;
    }

    void skip() override {
        ++position_;
        fresh_ = false;
    }
    // An older snapshot may lack a name that a layer above shows by now.
    bool found(Found& into) override {
        const bool young = sys::coarse_milliseconds() - gathered_ms_ < kTrustedMs;
        if (!look_ || !young || position_ >= snapshot_->names.size()) {
            return false;
        }
        const auto& name = snapshot_->names[position_];
        return name.layer != Snapshot::kAnyLayer &&
               look_(name.layer, snapshot_->text.data() + name.start, into) == 0;
    }
    // Positions are those of one snapshot.
    bool can_resume() const noexcept override { return !snapshot_; }
    bool can_rewind() const noexcept override { return fresh_ || !layers_.empty(); }

  private:
    // Entries that a serving thread reads by itself: some milliseconds' worth.
    static constexpr std::size_t kLittle = 2048;

    int pass(std::size_t most, std::uint32_t uid, const Snapshots::Version* version) {
        try {
            Pass pass(layers_, most);
            const int error = pass.run();
            if (error == 0) {
                use(snapshots_->add(pass.take(), uid, version));
            }
            return error;
        } catch (const std::bad_alloc&) {
            return -ENOMEM;
        }
    }

    void use(HeldSnapshot snapshot) {
        snapshot_ = std::move(snapshot);
        fresh_ = true;
        layers_.clear();  // and their descriptors
    }

    // Says what the directory is before any name is read.
    int begin(Snapshots::Version& version, bool& told) {
        version.push_back(source_);
        told = true;
        for (const auto& layer : layers_) {
            Found found;
            std::unique_ptr<Listing> names;
            std::vector<struct ::statx> statuses;
            if (const int error = layer.directory->list(names, statuses); error != 0) {
                return error;
            }
            told = told && layer.directory->find("", found) == 0 &&
                   (layer.fixed || !statuses.empty()) &&
                   std::all_of(statuses.begin(), statuses.end(), Snapshots::is_settled);
            version.insert(version.end(), {found.identity.ino, found.identity.birth,
                                           found.identity.lease, statuses.size()});
            for (const auto& status : statuses) {
                Snapshots::add_to(version, status);
            }
        }
        return 0;
    }

    std::vector<ListedLayer> layers_;  // none once there is a snapshot
    const std::shared_ptr<Snapshots> snapshots_;
    const std::uint64_t source_;
    const LookInLayer look_;
    std::int64_t gathered_ms_ = 0;  // coarse
    HeldSnapshot snapshot_;
    bool fresh_ = false;  // no entry was read since the snapshot was taken
};

}  // namespace

std::unique_ptr<Listing> merge_listings(std::vector<ListedLayer> layers,
                                        std::shared_ptr<Snapshots> snapshots, std::uint64_t source,
                                        LookInLayer look) {
    if (layers.size() == 1) {
        return std::make_unique<OneLayer>(std::move(layers.front()));
    }
    return std::make_unique<Merged>(std::move(layers), std::move(snapshots), source,
                                    std::move(look));
}

}  // namespace zc
