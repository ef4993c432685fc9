// The source that shows several real directories, its branches, as one that clients can change.
//
// A file lies in one branch, and its changes go there. Control decides the branch of a new file
// (placements.hpp); without a decision the request goes up. A directory may lie in several branches
// and is the one of the last that has it: its attributes, and a directory that is made in it, are
// there. Where the branches have one name several times, the first one's file shows. A program may
// want to be asked about each change of what exists.
//
// Threads: any. One change of names at a time.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "serve/sources/placements.hpp"
#include "serve/sources/snapshots.hpp"
#include "serve/sources/source.hpp"

namespace zc {

class PoolSource final : public Source, public std::enable_shared_from_this<PoolSource> {
  public:
    using Branches = std::vector<std::shared_ptr<const Source>>;

    // A change of an existing file or directory. Opening it to write, and truncating it, is
    // `write`.
    enum class Change : std::uint8_t { remove, rename, write };
    // The errno that a change gets; 0: it is made. `asks`: once control has permitted it.
    struct Refusals {
        std::array<int, 3> errnos{};
        bool asks = false;
    };

    // Throws std::system_error without a branch, or for one that is no directory.
    static std::shared_ptr<const PoolSource> make(Branches branches, const Refusals& refusals,
                                                  std::shared_ptr<Snapshots> snapshots);

    Placements& placements() const noexcept { return placements_; }
    // The change may be made once; without a name, any change in the directory for so long.
    void permit(const Identity& directory, Change change, const std::optional<std::string>& name,
                std::optional<Placements::Milliseconds> valid) const;
    // 0, -errno, or kUpcall for a change that control has not permitted.
    int refused(const Identity& directory, Change change, const std::string& name) const;

    // Its nodes are handled like those of a union.
    Kind kind() const noexcept override { return Kind::overlay; }
    Freshness freshness() const noexcept override { return Freshness::timed; }
    bool is_near() const noexcept override {
        return std::all_of(branches_.begin(), branches_.end(),
                           [](const auto& branch) { return branch->is_near(); });
    }
    SourceDirectory::Ref root() const override;
    SourceDirectory::Ref adopt(sys::UniqueFd directory) const override;
    int refused_write() const noexcept override {
        return -refusals_.errnos[static_cast<std::size_t>(Change::write)];
    }
    bool is_changeable() const noexcept override { return true; }
    // Of all branches, each filesystem once.
    int filesystem_status(struct ::statvfs& into) const override;
    std::uint64_t shown_ino(const struct ::statx& status) const noexcept override;
    std::uint32_t layers() const noexcept override {
        return static_cast<std::uint32_t>(branches_.size());
    }
    Volume volume(std::uint32_t layer) const override { return branches_[layer]->volume(0); }
    std::size_t descriptors() const noexcept override { return branches_.size(); }

  private:
    class At;
    void show(struct ::statx& status) const noexcept;
    PoolSource(Branches branches, const Refusals& refusals, std::shared_ptr<Snapshots> snapshots)
        : branches_(std::move(branches)),
          refusals_(refusals),
          snapshots_(std::move(snapshots)),
          number_(Snapshots::next_source()) {}

    const Branches branches_;
    const Refusals refusals_;
    const std::shared_ptr<Snapshots> snapshots_;
    const std::uint64_t number_;
    mutable Placements placements_;
    mutable Placements permitted_;  // of changes, which have no branch
    mutable std::mutex names_;      // held over system calls
};

}  // namespace zc
