// The source that shows several real directories, its branches, as one that clients can change.
//
// A file lies in one branch, and its changes go there. Control decides the branch of a new file
// (placements.hpp); without a decision the request goes up. A directory may lie in several branches
// and is the one of the last that has it: its attributes, and a directory that is made in it, are
// there. Where the branches have one name several times, the first one's file shows.
//
// Threads: any. One change of names at a time.
#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "serve/sources/placements.hpp"
#include "serve/sources/snapshots.hpp"
#include "serve/sources/source.hpp"

namespace zc {

class PoolSource final : public Source, public std::enable_shared_from_this<PoolSource> {
  public:
    using Branches = std::vector<std::shared_ptr<const Source>>;

    // The errno that a change of an existing file or directory gets; 0: the change is made.
    struct Refusals {
        int remove = 0;
        int rename = 0;
        int write = 0;  // opening it for writing, truncating it
    };

    // Throws std::system_error without a branch, or for one that is no directory.
    static std::shared_ptr<const PoolSource> make(Branches branches, const Refusals& refusals,
                                                  std::shared_ptr<Snapshots> snapshots);

    Placements& placements() const noexcept { return placements_; }

    // Its nodes are handled like those of a union.
    Kind kind() const noexcept override { return Kind::overlay; }
    Freshness freshness() const noexcept override { return Freshness::timed; }
    bool is_near() const noexcept override {
        return std::all_of(branches_.begin(), branches_.end(),
                           [](const auto& branch) { return branch->is_near(); });
    }
    SourceDirectory::Ref root() const override;
    SourceDirectory::Ref adopt(sys::UniqueFd directory) const override;
    int refused_write() const noexcept override { return -refusals_.write; }
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
    mutable std::mutex names_;  // held over system calls
};

}  // namespace zc
