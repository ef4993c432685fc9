// The names of a directory that several layers have, each once, without what is hidden.
//
// The listing of one layer uses that layer's positions and streams. A listing of several layers
// reads all names when a pass begins, because positions of several filesystems cannot be mixed. Its
// positions count the names of that snapshot, and it keeps no descriptor beside it. A pass has one
// layer's names open at a time.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "serve/sources/snapshots.hpp"
#include "serve/sources/source.hpp"

namespace zc {

struct ListedLayer {
    SourceDirectory::Ref directory;
    std::unique_ptr<Listing> names;  // of a single layer
    bool fixed = false;              // its names never change
};

// Describes a name in the listed layer that shows it. Returns 0, or an error if the directory must
// be searched.
using LookInLayer = std::function<int(std::size_t layer, const char* name, Found&)>;

// The topmost first, one at least. `source` is a number that no other source of layers has. A
// snapshot knows the layer of each name, so `look` needs no search; it may be empty.
std::unique_ptr<Listing> merge_listings(std::vector<ListedLayer> layers,
                                        std::shared_ptr<Snapshots> snapshots, std::uint64_t source,
                                        LookInLayer look);

}  // namespace zc
