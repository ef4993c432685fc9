// The bytes of a small file, sent to the kernel's cache before the reply to its first OPEN, so that
// a client that reads the file waits for no READ.
//
// The notification goes to /dev/fuse, also where a ring brought the request. Not for files with
// passthrough, whose pages the kernel takes from the backing file; nor where a path was chosen, or
// where changes are pushed: a push could be overtaken by the bytes from before.
//
// The kernel waits for pages of a READ in flight before it takes the bytes, and that READ may be in
// the queue of the ring that this thread serves. So the bytes go before the first READ: no client
// has had the file open before, and an OPEN that comes meanwhile waits for its turn
// (serve/first_opens.hpp) before it is answered. So these bytes never replace newer ones either.
#pragma once

#include "serve/ops/operation.hpp"

namespace zc::ops {

// Notes that a client opens a file, of which the open saw `version`. Returns whether the kernel has
// all of it now.
bool send_ahead(Context& context, const Request& request, const FileLease& lease,
                const struct ::statx& version);

}  // namespace zc::ops
