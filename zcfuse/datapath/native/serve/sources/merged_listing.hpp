// The names of a directory that several layers have, each once, without what is hidden.
//
// What one layer has is passed on by that layer's own positions. What several have is read as a
// whole when a pass begins, since positions of several filesystems do not go together; a position
// then counts the names of that snapshot.
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
