// The nodes as they lie in memory that may survive the process: records and the names that they
// point to, by index. The table of nodes (table.hpp) adds locks and indexes, which each process
// makes for itself.
//
// Each change takes effect by one store (serve/surviving/publish.hpp): a record is there once its
// nodeid is, a name once a record or another name points to it. A process that stops earlier leaks
// a record or a name at most.
//
// The file has a header, then 64 shards' headers, then for each shard a stripe of records and two
// stripes of names. It is sparse. A shard uses one stripe of names until it moves those in use to
// the other one, and gives the first one back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "serve/nodes/identity.hpp"
#include "serve/surviving/publish.hpp"
#include "sys/memory_file.hpp"

namespace zc {

// There may be millions: fields are ordered so that little is wasted.
struct TableNode {
    enum Flag : std::uint8_t { root = 1, revoked = 2, described = 4 };
    static constexpr unsigned kTypeShift = 12;

    std::uint64_t nodeid;  // 0: free
    std::uint64_t ino;
    std::uint64_t birth;
    std::uint64_t lookups;
    std::uint64_t seen_first;
    std::uint64_t seen_second;
    std::uint32_t lease;
    std::uint32_t check;             // of nodeid and identity
    std::uint32_t name;              // the newest; 0: none
    std::uint32_t next_by_nodeid;    // of this process's index, or the next free record
    std::uint32_t next_by_identity;  // of this process's index
    std::uint8_t type;               // S_IFMT bits of the mode, shifted down
    std::uint8_t flags;
    std::uint8_t held;
    std::uint8_t unused;

    Identity identity() const noexcept {
        return {ino, birth, lease, std::uint32_t{type} << kTypeShift};
    }
    void identify(std::uint64_t as, const Identity& identity) noexcept;  // all but the nodeid
    bool has(Flag flag) const noexcept { return (flags & flag) != 0; }
    void set(Flag flag, bool on) noexcept {
        flags = static_cast<std::uint8_t>(on ? flags | flag : flags & ~flag);
    }
};
static_assert(sizeof(TableNode) == 72);

// A name in a directory; its text follows, with a NUL.
struct TableName {
    std::uint64_t parent;
    std::uint32_t next;  // an older name of the same node, or the next free one of this size
    std::uint16_t length;

    std::string_view text() const noexcept {
        return {reinterpret_cast<const char*>(this) + kText, length};
    }
    bool is(std::uint64_t directory, std::string_view name) const noexcept {
        return parent == directory && text() == name;
    }
    static constexpr std::size_t kText = 14;
};

class NodeMemory {
  public:
    static constexpr std::size_t kShards = 64;
    static constexpr std::size_t kUnit = 16;  // of a name's bytes
    // FUSE has no longer names (FUSE_NAME_MAX).
    static constexpr std::size_t kLongestName = 1024;
    static constexpr std::size_t kSizes = (TableName::kText + kLongestName) / kUnit + 2;
    // Of records, names and headers: to be raised with every change of them.
    static constexpr std::uint32_t kLayout = 1;

    struct Header {
        std::uint64_t magic;
        std::uint32_t layout;
        std::uint32_t shift;  // a shard has room for 1 << shift records
        std::uint64_t check;
    };
    struct alignas(64) Shard {
        std::uint64_t last_number;  // of a nodeid
        std::uint32_t records;      // in use or free; record 0 is neither
        std::uint32_t stripe;       // of names: 0 or 1
        std::uint32_t units[2];     // of names in each stripe, in use or free
        std::uint32_t free_names[kSizes];
    };

    // Throws std::system_error.
    NodeMemory();
    // Takes what an earlier process left. Throws std::system_error, DamagedState.
    explicit NodeMemory(sys::UniqueFd fd);
    NodeMemory(const NodeMemory&) = delete;
    NodeMemory& operator=(const NodeMemory&) = delete;

    int fd() const noexcept { return file_.fd(); }
    int detach() noexcept { return file_.detach(); }
    // Whether an earlier process made it.
    bool is_taken() const noexcept { return taken_; }
    std::uint32_t capacity() const noexcept { return std::uint32_t{1} << shift_; }  // of a shard

    Shard& shard(std::size_t number) const noexcept;
    TableNode* records(std::size_t shard) const noexcept;
    std::byte* names(std::size_t shard) const noexcept;
    TableNode& record(std::size_t shard, std::uint32_t index) const noexcept {
        return records(shard)[index];
    }
    TableName& name(std::size_t shard, std::uint32_t at) const noexcept {
        return name_in(names(shard), at);
    }
    static TableName& name_in(std::byte* names, std::uint32_t at) noexcept {
        return *reinterpret_cast<TableName*>(names + kUnit * at);
    }
    std::uint32_t units_of_stripe() const noexcept { return std::uint32_t{3} << shift_; }

    // A record, free until its nodeid is stored, and a name, free until something points to it.
    // Each throws std::bad_alloc where the shard is full.
    std::uint32_t new_record(std::size_t shard, std::uint32_t& free_records) const;
    std::uint32_t new_name(std::size_t shard, std::uint64_t parent, std::string_view text,
                           std::uint32_t next) const;
    // Nothing may point to it any more.
    void free_name(std::size_t shard, std::uint32_t at) const noexcept;
    // Whether what lies there is a name.
    bool is_name(std::size_t shard, std::uint32_t at) const noexcept;
    // Checks what the shard's header says. Throws DamagedState.
    void verify(std::size_t shard) const;

    // Moves all names of records 1 to `records` to the other stripe, and gives the first one back.
    void move_names(std::size_t shard) const;
    // Gives back what lies behind the last record.
    void release_records(std::size_t shard) const noexcept;

    [[noreturn]] static void damaged(const std::string& what);

  private:
    std::size_t records_at(std::size_t shard) const noexcept;
    std::size_t names_at(std::size_t shard) const noexcept;
    std::size_t stripe_bytes() const noexcept { return kUnit * units_of_stripe(); }
    static std::size_t bytes(std::uint32_t shift) noexcept;
    std::uint32_t take_units(std::size_t shard, std::uint32_t units) const;

    std::uint32_t shift_ = 0;
    bool taken_ = false;
    sys::MemoryFile file_;
};

}  // namespace zc
