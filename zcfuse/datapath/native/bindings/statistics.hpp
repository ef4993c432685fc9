// The data path's counters as Python dictionaries. The caller holds the GIL; these functions
// release it while they wait for threads.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>

#include "serve/datapath.hpp"

namespace zc::bindings {

nanobind::list hot_files(const DataPath& path, std::size_t most);
nanobind::dict statistics(const DataPath& path);

}  // namespace zc::bindings
