// Memory that survives the process, with what a successor must know of the connection itself: INIT,
// the roots of leases, counters of the takeovers.
//
// Thread-safe: the words are atomic, and the roots have a lock, which is innermost.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "abi/fuse.hpp"
#include "serve/nodes/identity.hpp"
#include "serve/surviving/surviving_table.hpp"

namespace zc {

struct SessionLayout;

class SessionMemory : public SurvivingTable<SessionLayout> {
  public:
    // To be raised with every change of what lies there.
    static constexpr std::uint32_t kLayout = 1;
    static constexpr std::size_t kLargestInit = 1024;
    static constexpr std::size_t kMostRoots = 1 << 16;

    // `layout`: of all memory that survives. Throws std::system_error.
    explicit SessionMemory(std::uint32_t layout);
    // Takes what an earlier process left. Throws std::system_error, DamagedState.
    SessionMemory(sys::UniqueFd fd, std::uint32_t layout);
    // The layout that another process's memory has. Throws std::system_error, DamagedState.
    static std::uint32_t layout_of(int fd);
    // How many processes have taken it.
    std::uint32_t generation() const noexcept;
    void begin_generation() noexcept;

    // The INIT request, whole; a longer one than kLargestInit is cut short.
    void record_init(std::span<const std::byte> request);
    // The reply to INIT. From then on the state is negotiated.
    void record_reply(const abi::InitOut& reply);
    std::vector<std::byte> init() const;
    std::optional<abi::InitOut> reply() const;

    void count_resent(std::uint32_t opcode) noexcept;
    std::array<std::uint64_t, abi::kOpcodes> resent() const noexcept;

    // A lease's root, whose numbers are in the identities of the nodes below it.
    struct Root {
        std::uint64_t nodeid = 0;
        std::uint64_t content = 0;  // what its nodes depend on (Source::content())
        std::uint32_t number = 0;   // of the first layer
        std::uint32_t layers = 0;
        std::uint32_t kind = 0;  // Source::Kind
    };
    // Returns the number of the first layer: that of the root that an earlier process leased at
    // this node, if it is the same, or a new one.
    std::uint32_t number_of(const Root& root);
    void drop_root(std::uint64_t nodeid);
    std::vector<Root> roots() const;

    // A number for a handle, never returned before.
    std::uint64_t next_handle() noexcept;
    std::uint64_t last_handle() const noexcept;

  private:
    Root* find(std::uint64_t nodeid) const noexcept;
};

}  // namespace zc
