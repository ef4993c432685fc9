// Searches the layers of Python as the data path searches its own layers.
#pragma once

#include <nanobind/nanobind.h>

namespace zc::bindings {

void add_layers(nanobind::module_& module);

}  // namespace zc::bindings
