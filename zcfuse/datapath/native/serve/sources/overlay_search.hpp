// Follows a name through the layers of a union, from the top to the bottom, as the kernel does
// (fs/overlayfs/namei.c, ovl_lookup, Linux 6.18). The layers may be native ones or Python's.
//
// Directories merge until one is opaque. A redirect gives the name, or the path from the layers'
// roots, that the layers below use for the rest. A metacopy leads to the file with its bytes.
//
// A search is used once, by one thread.
#pragma once

#include <cerrno>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "serve/sources/source.hpp"

namespace zc {

// One layer's part of a directory.
struct LayerPart {
    std::size_t layer = 0;
    SourceDirectory::Ref directory;
};

// The file that has the bytes of a metacopy, as its layer has it.
struct DataFile {
    SourceDirectory::Ref directory;
    std::string name;
    Found found;
};

class OverlaySearch {
  public:
    // Opens the roots of the layers below one.
    using Roots = std::function<std::vector<LayerPart>(std::size_t layer)>;

    // `follows`: redirects and metacopies are followed.
    OverlaySearch(Roots roots_below, bool follows, const char* name)
        : roots_below_(std::move(roots_below)), follows_(follows), names_{name} {}
    OverlaySearch(const OverlaySearch&) = delete;
    OverlaySearch& operator=(const OverlaySearch&) = delete;

    // Each returns 0, -errno, or kUpcall for what control has to answer, or refuses for a reason.

    // Opens the parts of a directory; `parts` are those of the directory above it. Parts after the
    // first `kept` are only counted: each takes a descriptor.
    int find_directory(std::span<const LayerPart> parts, std::size_t kept,
                       std::vector<LayerPart>& into);
    // Where the redirect of the topmost part leads: "" without one.
    const std::string& top_redirect() const noexcept { return top_redirect_; }
    // Finds the bytes of a metacopy, which the first part has, in the others.
    int find_data(std::span<const LayerPart> parts, const Marks& metacopy, DataFile& into);
    Refusal refusal() const noexcept { return refusal_; }

  private:
    template <typename Walk>
    int descend(std::span<const LayerPart> parts, Walk walk);
    int enter(const SourceDirectory::Ref& from, std::size_t depth, SourceDirectory::Ref& into);
    int enter_all(const LayerPart& part, std::size_t count, SourceDirectory::Ref& into);
    int missing(const SourceDirectory& directory, const std::string& name);
    int judge(const SourceDirectory& above, std::size_t depth, const SourceDirectory& opened);
    int judge_data(const SourceDirectory& directory, DataFile& into);
    int follow(const Marks& marks, std::size_t after);

    const Roots roots_below_;
    const bool follows_;
    std::vector<std::string> names_;   // that the next layer has
    std::vector<std::string> walked_;  // that the layer at hand has
    std::vector<LayerPart> roots_;
    bool from_roots_ = false;  // the names lead from the layers' roots
    bool lowest_ = false;      // no other part is left
    bool stopped_ = false;     // what lies further down does not show
    bool has_data_ = false;
    bool followed_ = false;
    Refusal refusal_ = Refusal::none;
    std::string redirect_;  // the last one that was followed
    std::string top_redirect_;
    int error_ = -ENOENT;  // where no layer has the name
};

bool means_missing(int error) noexcept;
// Finds the topmost part from `first` on that has a name. Returns what looking it up there does, or
// -ENOENT where a `.wh.` name of any part above hides it.
int find_topmost(std::span<const LayerPart> parts, std::size_t first, const char* name,
                 std::size_t& part, Found& into);
// Reads the marks of a regular file that a part has. -ENOENT for a whiteout; kUpcall for a metacopy
// that a union shows, which is a layer.
int read_file_marks(const LayerPart& part, const char* name, const Found& file, Marks& into);

}  // namespace zc
