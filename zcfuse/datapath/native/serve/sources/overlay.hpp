// The source that shows several sources as one, the topmost first. It searches them as the kernel
// does (overlay_search.hpp), and forwards metacopies and redirects that must not be followed. With
// a work directory the first source is an upper layer: what clients change goes there
// (union_directory.hpp).
//
// An open directory holds each layer's part of it. These parts follow from those of the directory
// above, so a node keeps only the layer that shows it.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "serve/sources/overlay_search.hpp"
#include "serve/sources/snapshots.hpp"
#include "serve/sources/source.hpp"
#include "serve/sources/upper_layer.hpp"

namespace zc {

// How clients change a union. `work`: an empty directory on the filesystem of the first layer,
// which makes that an upper layer; without one they do not. `metacopies`: a changed mode, owner,
// time or extended attribute copies no bytes up. `redirects`: a directory of a lower layer can be
// renamed. Both need a process that sees `trusted.` attributes. `memory`: for a successor.
struct OverlayChanges {
    sys::UniqueFd work;
    bool metacopies = false;
    bool redirects = false;
    std::shared_ptr<CopyMemory> memory;
};

class OverlaySource final : public Source, public std::enable_shared_from_this<OverlaySource> {
  public:
    using Layers = std::vector<std::shared_ptr<const Source>>;

    // `sees_trusted`: this process sees `trusted.` attributes. If not, a file that is one hole may
    // be a metacopy, and control opens it. Throws std::system_error without a layer, or for an
    // upper layer that is no directory.
    static std::shared_ptr<const OverlaySource> make(
        Layers layers, bool sees_trusted,
        std::shared_ptr<Snapshots> snapshots = std::make_shared<Snapshots>(),
        OverlayChanges changes = {});
    ~OverlaySource() override;

    Kind kind() const noexcept override { return Kind::overlay; }
    Freshness freshness() const noexcept override { return worst(&Source::freshness); }
    Freshness data_freshness() const noexcept override { return worst(&Source::data_freshness); }
    void add_real(std::uint32_t first, std::vector<Real>& into) const override;
    bool names_can_be_watched() const noexcept override {
        return std::all_of(layers_.begin(), layers_.end(),
                           [](const auto& layer) { return layer->names_can_be_watched(); });
    }
    void set_pushed(Freshness how) const noexcept override;
    SourceDirectory::Ref root() const override;
    SourceDirectory::Ref adopt(sys::UniqueFd directory) const override;
    bool is_near() const noexcept override {
        return std::all_of(layers_.begin(), layers_.end(),
                           [](const auto& layer) { return layer->is_near(); });
    }
    bool is_changeable() const noexcept override { return upper_ != nullptr; }
    bool makes_metacopies() const noexcept override { return metacopies_ && follows(); }
    bool makes_redirects() const noexcept override { return redirects_ && follows(); }
    // Of the topmost layer.
    int filesystem_status(struct ::statvfs& into) const override;
    std::uint64_t shown_ino(const struct ::statx& status) const noexcept override;
    std::uint32_t layers() const noexcept override { return count_; }
    Volume volume(std::uint32_t layer) const override;
    std::uint64_t content() const noexcept override {
        std::uint64_t number = layers_.size();
        for (const auto& layer : layers_) {
            number = mixed(number ^ layer->content());
        }
        return number;
    }
    std::size_t descriptors() const noexcept override { return descriptors_; }
    std::size_t bytes() const noexcept override { return bytes_; }

  private:
    class At;
    OverlaySource(Layers layers, bool sees_trusted, std::shared_ptr<Snapshots> snapshots,
                  OverlayChanges changes);
    Freshness worst(Freshness (Source::*of)() const noexcept) const noexcept;
    std::vector<LayerPart> roots_below(std::size_t layer) const;
    void show(std::size_t parts, struct ::statx& status) const noexcept;
    // Whether redirects and metacopies are followed. A change is pushed by the path that the real
    // file has, and that is not the path that shows it behind a redirect.
    bool follows() const noexcept { return !reports_names(freshness()); }

    const Layers layers_;
    const bool sees_trusted_;
    const std::shared_ptr<Snapshots> snapshots_;
    const std::unique_ptr<const UpperLayer> upper_;  // of the first layer
    const bool metacopies_;
    const bool redirects_;
    const std::uint64_t number_;        // among all sources
    std::vector<std::uint32_t> first_;  // the number of each layer's first identity
    std::uint32_t count_ = 0;
    std::uint64_t home_ = 0;  // the device whose inode numbers are shown as they are
    std::size_t descriptors_ = 0;
    std::size_t bytes_ = 0;
};

}  // namespace zc
