// Names in directories that are merged from several layers: which layer has what is shown, and the
// parts that make up a directory. The search is that of zcfuse/tree/_union_search.py, but what
// leads elsewhere (metacopy, redirect) and what lies behind another mount is handed up.
//
// The parts of a directory are not kept with its node: they follow from those of the directory
// above it and are found when it is opened.
//
// No state; any thread.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <vector>

#include "serve/nodes/directories.hpp"

namespace zc::unions {

// Finds the part of a merged directory that shows a name, and what it is there. `parts` are those
// of the name itself, where it is a directory. 0, kHandUp or -errno.
struct Shown {
    std::size_t part = 0;
    struct ::statx status {};
    std::vector<Part> parts;
};
int find(const Directory& directory, const char* name, Shown& into);

// Opens the parts of the directory called `name`; no layer above the part `first` has it. 0,
// kHandUp or -errno; ENOTDIR for what is none.
int step(const Directory& directory, const char* name, std::vector<Part>& into,
         std::size_t first = 0);

}  // namespace zc::unions
