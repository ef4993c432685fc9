// Follows a name through the layers of a union, from the top to the bottom, as the kernel does
// (fs/overlayfs/namei.c, ovl_lookup); zcfuse/tree/_union_search.py does the same.
//
// Directories merge until one is opaque. A redirect gives the name, or the path from the layers'
// roots, that the layers below use for the rest. A metacopy leads to the file with its bytes.
//
// A search is used once, by one thread.
#pragma once

#include <cerrno>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
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
    using Layers = std::vector<std::shared_ptr<const Source>>;

    OverlaySearch(const Layers& layers, const char* name) : layers_(layers), names_{name} {}
    OverlaySearch(const OverlaySearch&) = delete;
    OverlaySearch& operator=(const OverlaySearch&) = delete;

    // Each returns 0, -errno, or kUpcall for what control has to refuse or to answer.

    // Opens the parts of a directory; `parts` are those of the directory above it. Parts after the
    // first `kept` are only counted: each takes a descriptor.
    int find_directory(std::span<const LayerPart> parts, std::size_t kept,
                       std::vector<LayerPart>& into);
    // Whether a redirect was followed, and where that of the topmost part leads: "" without one.
    bool followed() const noexcept { return followed_; }
    const std::string& top_redirect() const noexcept { return top_redirect_; }
    // Finds the bytes of a metacopy in `layer`; `parts` lie below it.
    int find_data(std::size_t layer, const Marks& metacopy, std::span<const LayerPart> parts,
                  DataFile& into);

  private:
    template <typename Walk>
    int descend(std::span<const LayerPart> parts, Walk walk);
    void start_at_roots(std::size_t above);
    int enter(const SourceDirectory::Ref& from, std::size_t depth, SourceDirectory::Ref& into);
    int enter_all(const LayerPart& part, std::size_t count, SourceDirectory::Ref& into);
    int missing(const SourceDirectory& directory, const std::string& name);
    int judge(const SourceDirectory& above, std::size_t depth, const SourceDirectory& opened);
    int judge_data(const SourceDirectory& directory, DataFile& into);
    int follow(const Marks& marks, std::size_t after);

    const Layers& layers_;
    std::vector<std::string> names_;   // that the next layer has
    std::vector<std::string> walked_;  // that the layer at hand has
    std::vector<LayerPart> roots_;
    bool from_roots_ = false;  // the names lead from the layers' roots
    bool lowest_ = false;      // no other part is left
    bool stopped_ = false;     // what lies further down does not show
    bool has_data_ = false;
    bool followed_ = false;
    std::string redirect_;  // the last one that was followed
    std::string top_redirect_;
    int error_ = -ENOENT;  // where no layer has the name
};

bool means_missing(int error) noexcept;
// 1 or 0, or -errno: whether a `.wh.` name hides the name in the layers below.
int is_covered(const SourceDirectory& directory, const char* name);

}  // namespace zc
