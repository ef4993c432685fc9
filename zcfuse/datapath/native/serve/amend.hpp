// The data path amends some of control's replies before the kernel sees them: INIT (capabilities),
// OPEN and CREATE (how bytes travel), the st_ino of LOOKUP, GETATTR and READDIRPLUS, and an ENOSYS
// that would switch an operation off for the whole connection. Pure functions over the bytes of one
// reply.
#pragma once

#include <cstddef>
#include <span>

#include "abi/fuse_nodes.hpp"
#include "serve/inode_numbers.hpp"
#include "serve/lease.hpp"
#include "serve/negotiation.hpp"
#include "serve/nodes/leased_nodes.hpp"
#include "transport/upcalls.hpp"

namespace zc {

class Amender {
  public:
    Amender(Negotiation& negotiation, const LeaseTable& leases, const LeasedNodes& leased_nodes,
            const InodeNumbers& numbers, bool leases_possible) noexcept
        : negotiation_(negotiation),
          leases_(leases),
          leased_nodes_(leased_nodes),
          numbers_(numbers),
          leases_possible_(leases_possible) {}

    // `reply` is a whole reply, header first, whose length has been checked.
    void amend(const Upcall& upcall, std::span<std::byte> reply) const;

  private:
    void answer_open(std::uint64_t nodeid, abi::OpenOut& open) const;
    int amended_error(std::uint32_t opcode, int error) const noexcept;
    void amend_entries(std::span<std::byte> body) const;

    Negotiation& negotiation_;
    const LeaseTable& leases_;
    const LeasedNodes& leased_nodes_;
    const InodeNumbers& numbers_;
    bool leases_possible_;
};

}  // namespace zc
