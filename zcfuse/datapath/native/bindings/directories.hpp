// Open directories of real filesystems, which Python asks as the data path does, and the users'
// shares of descriptors.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

#include "serve/datapath.hpp"
#include "serve/sources/source.hpp"

namespace zc::bindings {

// Clients see the inode numbers of this device unchanged.
struct DirectoryHandle {
    SourceDirectory::Ref at;
    std::uint64_t numbers_of;
};

void add_directories(nanobind::module_& module, nanobind::class_<DataPath>& datapath);

}  // namespace zc::bindings
