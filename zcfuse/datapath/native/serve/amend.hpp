// The data path amends some of control's replies before the kernel sees them: INIT (capabilities),
// OPEN and CREATE (passthrough), the st_ino of LOOKUP, GETATTR and READDIRPLUS, and an ENOSYS that
// would switch an operation off for the whole connection. Pure functions over the bytes of one
// reply.
#pragma once

#include <cstddef>
#include <span>

#include "abi/fuse_nodes.hpp"
#include "serve/inode_numbers.hpp"
#include "serve/lease.hpp"
#include "serve/negotiation.hpp"
#include "transport/upcalls.hpp"

namespace zc {

class Amender {
  public:
    Amender(Negotiation& negotiation, const LeaseTable& leases, const InodeNumbers& numbers,
            bool leases_possible) noexcept
        : negotiation_(negotiation),
          leases_(leases),
          numbers_(numbers),
          leases_possible_(leases_possible) {}

    // `reply` is a whole reply, header first, whose length has been checked.
    void amend(const Upcall& upcall, std::span<std::byte> reply) const;

  private:
    int amended_error(std::uint32_t opcode, int error) const noexcept;
    void amend_entries(std::span<std::byte> body) const;

    Negotiation& negotiation_;
    const LeaseTable& leases_;
    const InodeNumbers& numbers_;
    bool leases_possible_;
};

}  // namespace zc
