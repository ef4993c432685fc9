// What the data path has counted, as dictionaries. The GIL is held; it is released while threads
// are waited for.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>

#include "serve/datapath.hpp"

namespace zc::bindings {

nanobind::list hot_files(const DataPath& path, std::size_t most);
nanobind::dict statistics(const DataPath& path);

}  // namespace zc::bindings
