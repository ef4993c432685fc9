// Open directories of real filesystems, which Python asks as the data path does.
#pragma once

#include <nanobind/nanobind.h>

namespace zc::bindings {

void add_directories(nanobind::module_& module);

}  // namespace zc::bindings
