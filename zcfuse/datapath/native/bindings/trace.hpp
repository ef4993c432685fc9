// What the threads of a data path noted of the requests they answered, for Python.
#pragma once

#include <nanobind/nanobind.h>

#include "serve/datapath.hpp"

namespace zc::bindings {

// (events as one bytes object, how many were lost, the places of the nodes in them as another, the
// nodeids of the leased directories that the places begin at). The GIL is released meanwhile.
nanobind::tuple drain_trace(const DataPath& path);
// Functions of the module that a reader of a trace uses, in its own process.
void add_trace(nanobind::module_& module);

}  // namespace zc::bindings
