// What Python imports rather than write it again.
#pragma once

#include <nanobind/nanobind.h>

namespace zc::bindings {

void add_constants(nanobind::module_& module);

}  // namespace zc::bindings
