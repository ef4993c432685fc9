// Where the new files of a pool go: what control has decided, for a directory or for one name.
//
// A decision for a name serves one request. Control forgets nothing by losing these: a request that
// finds none goes up to it.
//
// Threads: any.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "serve/nodes/identity.hpp"

namespace zc {

class Placements {
  public:
    using Milliseconds = std::int64_t;

    // For everything new in a directory, for so long; nothing: until the mount ends.
    void lease(const Identity& directory, std::uint32_t branch, std::optional<Milliseconds> valid);
    void decide(const Identity& directory, std::string name, std::uint32_t branch);
    // Ends the leases of all directories.
    void forget();
    // The branch for a new name.
    std::optional<std::uint32_t> take(const Identity& directory, const std::string& name);

  private:
    struct Leased {
        std::uint32_t branch = 0;
        std::optional<Milliseconds> until;
    };
    struct Name {
        Identity directory;
        std::string text;
        bool operator==(const Name&) const noexcept = default;
    };
    struct NameHash {
        std::size_t operator()(const Name& name) const noexcept {
            return hash_of(name.directory) ^ std::hash<std::string>{}(name.text);
        }
    };

    std::mutex lock_;
    std::unordered_map<Identity, Leased, IdentityHash> leased_;
    std::unordered_map<Name, std::uint32_t, NameHash> decided_;
};

}  // namespace zc
