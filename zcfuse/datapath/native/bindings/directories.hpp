// Open directories of real filesystems, which Python asks as the data path does, and the users'
// shares of descriptors.
#pragma once

#include <nanobind/nanobind.h>

#include "serve/datapath.hpp"

namespace zc::bindings {

void add_directories(nanobind::module_& module, nanobind::class_<DataPath>& datapath);

}  // namespace zc::bindings
