// Sources that Python holds or puts together, and the patterns of filters.
#pragma once

#include <nanobind/nanobind.h>

#include "serve/datapath.hpp"

namespace zc::bindings {

void add_sources(nanobind::module_& module, nanobind::class_<DataPath>& datapath);

}  // namespace zc::bindings
