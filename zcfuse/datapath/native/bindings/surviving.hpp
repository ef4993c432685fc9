// The state that outlives a daemon, as Python hands it from one to the next.
#pragma once

#include <nanobind/nanobind.h>

#include "serve/datapath.hpp"

namespace zc::bindings {

void add_surviving(nanobind::module_& module, nanobind::class_<DataPath>& datapath);

}  // namespace zc::bindings
