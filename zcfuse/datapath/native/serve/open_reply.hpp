// The reply to an OPEN of a leased file.
//
// The data path and control must both answer an OPEN by the node's lease: the kernel refuses (EIO)
// an inode that is open in cached and in passthrough mode at once, or with two backing ids. So only
// this file sets the flags for the mode.
#pragma once

#include "abi/fuse.hpp"
#include "serve/lease.hpp"

namespace zc {

// Puts the mode of a lease into the reply; null: the file has none, and stays cached or direct.
// `keeps_pages`: whether the kernel may cache the bytes that it reads from us.
inline void answer_by(const FileLease* lease, bool keeps_pages, abi::OpenOut& open) noexcept {
    // Nothing is ever written back at a close, so a FLUSH would be a wasted round trip.
    open.open_flags |= abi::fopen::noflush | (keeps_pages ? 0 : abi::fopen::direct_io);
    if (lease != nullptr && lease->passthrough()) {
        // Any flag beside it but NOFLUSH, DIRECT_IO and PARALLEL_DIRECT_WRITES fails the open
        // (EIO).
        open.open_flags = abi::fopen::noflush | abi::fopen::passthrough;
        open.backing_id = lease->backing_id();
    }
}

}  // namespace zc
