// The source that shows another one without the names that patterns hide, and some under new names.
//
// Identities are those of the source beneath. A name that is hidden is missing: it cannot be looked
// up, and no listing has it. An open directory knows its path, for patterns that are paths. A
// real link count would reveal hidden directories, so every directory shows 1 link.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "serve/sources/name_patterns.hpp"
#include "serve/sources/source.hpp"

namespace zc {

class FilterSource final : public Source, public std::enable_shared_from_this<FilterSource> {
  public:
    // `above`: the path of the source's root from where the patterns count.
    static std::shared_ptr<const FilterSource> make(std::shared_ptr<const Source> inner,
                                                    std::shared_ptr<const NamePatterns> patterns,
                                                    std::string above);

    // Clients may not change a real directory through a filter.
    Kind kind() const noexcept override {
        return inner_->kind() == Kind::directory ? Kind::filter : inner_->kind();
    }
    Freshness freshness() const noexcept override { return inner_->freshness(); }
    Freshness data_freshness() const noexcept override { return inner_->data_freshness(); }
    bool is_near() const noexcept override { return inner_->is_near(); }
    SourceDirectory::Ref root() const override;
    int filesystem_status(struct ::statvfs& into) const override {
        return inner_->filesystem_status(into);
    }
    std::uint64_t shown_ino(const struct ::statx& status) const noexcept override {
        return inner_->shown_ino(status);
    }
    std::uint32_t layers() const noexcept override { return inner_->layers(); }
    Volume volume(std::uint32_t layer) const override { return inner_->volume(layer); }
    std::uint64_t content() const noexcept override { return inner_->content(); }
    std::size_t descriptors() const noexcept override { return inner_->descriptors(); }
    // A pushed change names the file beneath. It would miss a new name, and the names below a
    // renamed directory that now match a path.
    void add_real(std::uint32_t first, std::vector<Real>& into) const override {
        if (!patterns_->renames() && !patterns_->is_by_path()) {
            inner_->add_real(first, into);
        }
    }
    void set_pushed(Freshness how) const noexcept override { inner_->set_pushed(how); }
    bool is_complete() const noexcept override { return inner_->is_complete(); }
    std::size_t entries() const override { return inner_->entries(); }
    std::size_t bytes() const noexcept override { return inner_->bytes(); }

    const std::shared_ptr<const Source>& inner() const noexcept { return inner_; }

  private:
    class At;
    class Names;
    FilterSource(std::shared_ptr<const Source> inner, std::shared_ptr<const NamePatterns> patterns,
                 std::string above)
        : inner_(std::move(inner)), patterns_(std::move(patterns)), above_(std::move(above)) {}

    const std::shared_ptr<const Source> inner_;
    const std::shared_ptr<const NamePatterns> patterns_;
    const std::string above_;
};

}  // namespace zc
