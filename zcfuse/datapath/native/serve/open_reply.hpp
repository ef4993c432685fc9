// How an OPEN is answered for a file that has a lease.
//
// Whoever answers an OPEN, the data path or control, must answer by the lease that the node has:
// the kernel refuses (EIO) an inode that is open in cached and in passthrough mode at once, or with
// two backing ids. So the flags that say which are set here and nowhere else.
#pragma once

#include "abi/fuse.hpp"
#include "serve/lease.hpp"

namespace zc {

// Puts the mode of a lease into the reply; null: the file has none, and stays cached or direct.
inline void answer_by(const FileLease* lease, abi::OpenOut& open) noexcept {
    // Nothing is ever written back at a close, so a FLUSH would be a wasted round trip.
    open.open_flags |= abi::fopen::noflush;
    if (lease != nullptr && lease->passthrough()) {
        // Any flag beside it but NOFLUSH, DIRECT_IO and PARALLEL_DIRECT_WRITES fails the open
        // (EIO).
        open.open_flags = abi::fopen::noflush | abi::fopen::passthrough;
        open.backing_id = lease->backing_id();
    }
}

}  // namespace zc
