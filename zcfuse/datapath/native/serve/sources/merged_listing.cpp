#include "serve/sources/merged_listing.hpp"

#include <dirent.h>

#include <string>
#include <unordered_set>
#include <utility>

namespace zc {

namespace {

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

class Merged final : public Listing {
  public:
    explicit Merged(std::vector<ListedLayer> layers) noexcept : layers_(std::move(layers)) {}

    int seek(std::uint64_t position) override {
        if (position == 0 || names_.empty()) {
            if (const int error = read(); error < 0) {
                names_.clear();
                return error;
            }
        }
        position_ = position;
        return 0;
    }

    int peek(Entry& into) override {
        if (position_ >= names_.size()) {
            return 0;
        }
        const auto& name = names_[position_];
        into = {name.ino, position_ + 1, name.type, text_.data() + name.start, name.length};
        return 1;
    }

    void skip() override { ++position_; }
    // Positions are those of one snapshot.
    bool can_resume() const noexcept override { return names_.empty(); }

  private:
    struct Name {
        std::uint64_t ino;
        std::size_t start;  // in text_, with its NUL
        std::uint16_t length;
        unsigned char type;
    };
    // Which names the layers so far have, or have taken away.
    using Taken = std::unordered_set<std::string>;

    int read() {
        names_.clear();
        text_.clear();
        Taken taken;
        for (const auto& layer : layers_) {
            if (const int error = read(layer, taken); error < 0) {
                return error;
            }
        }
        return 0;
    }

    int read(const ListedLayer& layer, Taken& taken) {
        Taken covered;  // by a `.wh.` name, which speaks of the layers below its own
        int more = layer.names->seek(0);
        if (more < 0) {
            return more;
        }
        for (Entry entry; (more = layer.names->peek(entry)) == 1; layer.names->skip()) {
            const std::string name(entry.text());
            if (is_reserved(name)) {
                covered.insert(name.substr(whiteout_of("").size()));
            } else if (taken.insert(name).second && !is_whiteout(*layer.directory, entry)) {
                names_.push_back(
                    {entry.ino, text_.size(), static_cast<std::uint16_t>(name.size()), entry.type});
                text_.append(name).push_back('\0');
            }
        }
        taken.merge(covered);
        return more;
    }

    const std::vector<ListedLayer> layers_;
    std::vector<Name> names_;
    std::string text_;
};

}  // namespace

std::unique_ptr<Listing> merge_listings(std::vector<ListedLayer> layers) {
    if (layers.size() == 1) {
        return std::make_unique<OneLayer>(std::move(layers.front()));
    }
    return std::make_unique<Merged>(std::move(layers));
}

}  // namespace zc
