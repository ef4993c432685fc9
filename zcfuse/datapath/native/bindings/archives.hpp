// The index of an archive, which Python asks and leases.
#pragma once

#include <nanobind/nanobind.h>

#include "serve/datapath.hpp"

namespace zc::bindings {

void add_archives(nanobind::module_& module, nanobind::class_<DataPath>& datapath);

}  // namespace zc::bindings
