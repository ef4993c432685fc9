// Converts control's descriptions of `Dir` directories into C++ values.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <vector>

#include "serve/datapath.hpp"

namespace zc::bindings {

void add_indexes(nanobind::class_<DataPath>& datapath);

}  // namespace zc::bindings
