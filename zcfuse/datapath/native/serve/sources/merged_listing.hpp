// The names of a directory that several layers have, each once, without what is hidden.
//
// The listing of one layer uses that layer's positions. A listing of several layers reads all names
// when a pass begins, because positions of several filesystems cannot be mixed. Its positions count
// the names of that snapshot.
#pragma once

#include <memory>
#include <vector>

#include "serve/sources/source.hpp"

namespace zc {

struct ListedLayer {
    SourceDirectory::Ref directory;
    std::unique_ptr<Listing> names;
};

// The topmost first, one at least.
std::unique_ptr<Listing> merge_listings(std::vector<ListedLayer> layers);

}  // namespace zc
