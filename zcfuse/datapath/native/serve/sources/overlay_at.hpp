// An open directory of a union: each layer's part of it, the topmost first.
//
// overlay.cpp has what looks at it, overlay_changes.cpp what changes it. A directory is the one of
// its topmost part. Where that part lies in an upper layer, which clients change, it is the one of
// the part below: then a copy of it in the upper layer is still the same directory. With a redirect
// it is a copy only where the union writes redirects: then each leads to a directory of its own.
#pragma once

#include <cstddef>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "serve/sources/overlay.hpp"
#include "serve/sources/overlay_search.hpp"
#include "serve/sources/union_directory.hpp"

namespace zc {

class OverlaySource::At final : public SourceDirectory,
                                public UnionDirectory,
                                public std::enable_shared_from_this<At> {
  public:
    explicit At(std::shared_ptr<const OverlaySource> source) noexcept
        : source_(std::move(source)) {}

    void add(std::size_t layer, Ref directory) {
        parts_.push_back({layer, parts_.size() < kept_ ? std::move(directory) : nullptr});
    }
    // Only counts further parts: each takes a descriptor.
    void keep_open(std::size_t parts) noexcept { kept_ = parts; }

    int find(const char* name, Found& into) const override { return find_from(0, name, into); }
    sys::Remembered remembered(const char* name) const override {
        return remembered_in(parts_, name);
    }
    int enter(std::string_view path, Ref& into) const override;
    int status(const char* name, const Identity& wanted, struct ::statx& into) const override;
    int open(const char* name, const Identity& wanted, Opened& into) const override;
    int reopen(const char* name, const Identity& wanted, struct ::statx& into) const override;
    int read_link(const char* name, const Identity& wanted, std::string& into) const override;
    int get_xattr(const char* name, const Identity& wanted, const char* attribute,
                  Bytes& into) const override;
    int list_xattrs(const char* name, const Identity& wanted, Bytes& into) const override;
    int list(std::unique_ptr<Listing>& into, std::vector<struct ::statx>& versions) const override;
    int hold(const char* name, const Identity& wanted, int flags, sys::UniqueFd& into,
             struct ::statx& status) const override;
    int identify(int file, const char* name, Found& into) const override;

    // Of the topmost part, without those that lead elsewhere: they are followed here.
    int marks(const char* name, Marks& into) const override {
        const int error = parts_.front().directory->marks(name, into);
        into.metacopy = into.redirect = false;
        into.refused = Refusal::none;
        return error;
    }
    int descriptor() const noexcept override {
        return source_->upper_ && !is_raised() ? -1 : parts_.front().directory->descriptor();
    }
    void add_real(std::vector<int>& into) const override {
        for (const auto& part : parts_) {
            part.directory->add_real(into);
        }
    }
    const UnionDirectory* as_union() const noexcept override {
        return source_->upper_ ? this : nullptr;
    }

    bool is_raised() const noexcept override { return parts_.front().layer == 0; }
    int raise(const char* name) const override;
    int copy_up(const char* name, const Identity& wanted, CopiedBytes bytes,
                Copied& into) const override;
    int begin_making(const char* name, Making& into) const override;
    int finish_making(Making& making, bool is_directory, int made) const override;
    int complete_directory(const char* name) const override;
    int link(int file, const Identity&, const char* name) const override;
    int remove(const char* name, bool is_directory) const override;
    int rename(const char* name, const UnionDirectory& to, const char* new_name,
               unsigned flags) const override;

  private:
    using Part = LayerPart;
    struct LayerFile {
        const Part* part = nullptr;
        Identity wanted;  // as the layer has it
        bool metacopy = false;
    };
    // A name that a rename moves or replaces.
    struct Moving {
        const At& at;
        const char* name;
        Found found{};
        bool is_there = false;
        bool is_covering = false;  // the layers below have the name
        bool is_whiteout = false;  // the upper layer hides it
    };

    bool is_merged() const noexcept { return parts_.size() > 1; }
    // The part that says which directory it is.
    const Part& origin() const noexcept {
        const bool is_copy = source_->upper_ && is_raised() && is_merged() &&
                             (redirect_.empty() || source_->makes_redirects());
        return is_copy ? parts_[1] : parts_.front();
    }
    // Looks in the parts from `first` on.
    int find_from(std::size_t first, const char* name, Found& into) const;
    int find_in(std::size_t part, const char* name, Found& into) const;
    int itself(Found& into) const;
    LayerFile part_of(const char* name, const Identity& wanted) const;
    int judge(const Part& part, const char* name, int error, Found& into) const;
    int step(const char* name, std::size_t first, At& into) const;
    std::span<const Part> parts_from(const Part& part) const noexcept {
        return std::span(parts_).subspan(static_cast<std::size_t>(&part - parts_.data()));
    }
    OverlaySearch search(const char* name) const;
    int judge_file(const Part& part, const char* name, Found& into) const;
    int look_at_metacopy(const char* name, const Identity& wanted, Found& into,
                         DataFile& data) const;
    bool may_lack_bytes(const Part& part, const Found& found) const;
    int open_metacopy(const LayerFile& found, const char* name, const Identity& wanted,
                      Opened& into) const;

    // 1 or 0, or -errno: whether the upper layer has a whiteout of the name, whether a layer below
    // has the name, whether the directory `name` is in the upper layer alone or shows nothing.
    int has_whiteout(const char* name) const;
    int is_below(const char* name) const;
    int is_pure(const char* name) const;
    int is_empty(const char* name) const;
    int look(Moving& moving) const;
    int check_move(const Moving& from, const Moving& to, unsigned flags) const;
    bool is_same(const At& other) const;
    int redirect(const char* name, bool stays) const;
    int prepare_directory(const Moving& moving, const At& into) const;
    int prepare_move(const Moving& from, const Moving& to, bool exchanges) const;
    int move(const Moving& from, const Moving& to, unsigned flags) const;

    const std::shared_ptr<const OverlaySource> source_;
    std::vector<Part> parts_;
    std::size_t kept_ = std::numeric_limits<std::size_t>::max();
    std::string redirect_;  // where the topmost part leads the others, "": to its own name
    std::string below_;     // the path of the parts below the upper layer, if it writes redirects
};

}  // namespace zc
