// Frozen images: what they say, and the source that shows one.
#pragma once

#include <nanobind/nanobind.h>

namespace zc::bindings {

void add_images(nanobind::module_& module);

}  // namespace zc::bindings
