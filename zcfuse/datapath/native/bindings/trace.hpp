// What the threads of a data path noted of the requests they answered, for Python.
#pragma once

#include <nanobind/nanobind.h>

#include "serve/datapath.hpp"

namespace zc::bindings {

// (events as one bytes object, how many were lost, [(nodeid, leased directory above it, path from
// there)] for each node in them). The GIL is released while they are collected.
nanobind::tuple drain_trace(const DataPath& path);

}  // namespace zc::bindings
