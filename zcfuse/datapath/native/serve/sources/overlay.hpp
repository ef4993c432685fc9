// The source that shows several sources as one, the topmost first. It searches them as the kernel
// does (fs/overlayfs/namei.c), and hands up metacopies and redirects.
//
// An open directory holds each layer's part of it. These parts follow from those of the directory
// above, so a node keeps only the layer that shows it.
#pragma once

#include <memory>
#include <vector>

#include "serve/sources/snapshots.hpp"
#include "serve/sources/source.hpp"

namespace zc {

class OverlaySource final : public Source, public std::enable_shared_from_this<OverlaySource> {
  public:
    using Layers = std::vector<std::shared_ptr<const Source>>;

    // `sees_trusted`: this process sees `trusted.` attributes. If not, a file that is one hole may
    // be a metacopy, and control opens it. Throws std::system_error without a layer.
    static std::shared_ptr<const OverlaySource> make(
        Layers layers, bool sees_trusted,
        std::shared_ptr<Snapshots> snapshots = std::make_shared<Snapshots>());

    Kind kind() const noexcept override { return Kind::overlay; }
    Freshness freshness() const noexcept override { return worst(&Source::freshness); }
    Freshness data_freshness() const noexcept override { return worst(&Source::data_freshness); }
    void add_real(std::uint32_t first, std::vector<Real>& into) const override;
    void set_pushed() const noexcept override;
    SourceDirectory::Ref root() const override;
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
    OverlaySource(Layers layers, bool sees_trusted, std::shared_ptr<Snapshots> snapshots);
    Freshness worst(Freshness (Source::*of)() const noexcept) const noexcept;
    void show(std::size_t parts, struct ::statx& status) const noexcept;

    const Layers layers_;
    const bool sees_trusted_;
    const std::shared_ptr<Snapshots> snapshots_;
    const std::uint64_t number_;        // among all sources
    std::vector<std::uint32_t> first_;  // the number of each layer's first identity
    std::uint32_t count_ = 0;
    std::uint64_t home_ = 0;  // the device whose inode numbers are shown as they are
    std::size_t descriptors_ = 0;
    std::size_t bytes_ = 0;
};

}  // namespace zc
