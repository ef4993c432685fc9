// Whether clients may change the files of a pool, by nodeids.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "serve/sources/pool.hpp"

namespace zc {

class LeasedNodes;

// Permits a change in a directory of a pool once, or, without a name, every one for a time. For a
// change of bytes the node is the file, whatever the name. False: it is in no pool, or gone.
bool permit(const LeasedNodes& nodes, std::uint64_t nodeid, PoolSource::Change change,
            std::optional<std::string> name, std::optional<Placements::Milliseconds> valid);

// 0, -errno, or kUpcall: control decides whether a file may be opened for writing.
int refused_in_pool(const LeasedNodes& nodes, std::uint64_t nodeid);

}  // namespace zc
