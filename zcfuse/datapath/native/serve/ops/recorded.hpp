// Requests that change something and come a second time, because a daemon died before its answer
// (serve/surviving/change_memory.hpp). Without a holder that never happens, and nothing here has an
// effect.
#pragma once

#include <optional>

#include "serve/ops/change.hpp"

namespace zc::ops {

// Finds what an earlier process recorded for the same request.
std::optional<ChangeMemory::Change> recorded(const Context& context, const Request& request);

// Each records a change for a successor. Call it before the change is made, and only where what
// the client asks for is possible.
void record(Context& context, const Request& request, const ChangeMemory::Place& from = {},
            const ChangeMemory::Place& to = {}, unsigned flags = 0);

// Whether an earlier process made the name for the same request. The name must be that of a file
// of this type, or of the node `linked` unless that is 0. Otherwise it is recorded that the name
// is about to be made.
bool was_made(Context& context, const Request& request, const Spot& spot, std::uint32_t type,
              std::uint64_t linked = 0);
// Whether a file that was found is the one of a record, or a copy of it in an upper layer.
bool is_still(const Context& context, const Identity& found, const Identity& recorded);

// Call it behind the answer to each change.
void end_record(Context& context, const Request& request);

// Notes the new names of the renames that an earlier process made and did not note. Call it once
// the directories are leased, before requests are served.
void finish_renames(Context& context);

}  // namespace zc::ops
