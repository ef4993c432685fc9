// Opens files by path like open(2), with symbolic links, but never on our own mount.
//
// A request to our own mount might wait for the thread that sends it. So each step opens a name
// with O_PATH and checks its device before any request to it. A directory found this way stays open
// and counts as valid for at most one second; the last name is checked each time.
//
// Threads: any. The lock is innermost; descriptors are closed outside of it.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "sys/unique_fd.hpp"

namespace zc {

// A file's directory and its name there. Equal ids mean the same text.
struct BackingPath {
    std::shared_ptr<const std::string> directory;  // from the root on, with a slash at its end
    std::uint64_t directory_id = 0;
    std::string name;
};

class BackingPaths {
  public:
    // `trust_ms`: milliseconds for which a directory counts as valid.
    BackingPaths(std::int64_t trust_ms, std::size_t limit) noexcept
        : trust_ms_(trust_ms), limit_(limit) {}

    // Makes files on our own mount's device fail with ELOOP. Call it before threads start.
    void refuse_device(std::uint32_t major, std::uint32_t minor) noexcept;

    // The present status of a regular file; EISDIR for a directory, EINVAL for any other kind.
    int look(const BackingPath& path, struct ::statx& into);
    // Opens a regular file for reading and returns its status. kUpcall if another process holds a
    // lease of it.
    int open(const BackingPath& path, sys::UniqueFd& into, struct ::statx& status);
    // Its access ACL in the kernel's form (acl(5)), empty where it has none.
    int acl(const BackingPath& path, std::string& into);
    // Gives descriptors back.
    void clear();

  private:
    struct Directory {
        sys::UniqueFd fd;
        std::uint64_t device = 0;
        bool local = false;
        std::int64_t opened_ms = 0;
    };
    int directory(const BackingPath& path, std::shared_ptr<const Directory>& into);
    int check(int fd, struct ::statx& status) const;
    int walk(const std::string& path, int from, sys::UniqueFd& into, struct ::statx& status) const;
    int open_directly(int directory, const char* name, sys::UniqueFd& into) const;

    const std::int64_t trust_ms_;
    const std::size_t limit_;
    std::uint64_t refused_ = ~std::uint64_t{0};
    std::mutex lock_;
    std::unordered_map<std::uint64_t, std::shared_ptr<const Directory>> directories_;
};

inline constexpr const char* kAccessAcl = "system.posix_acl_access";
// The access ACL of a file that a descriptor stands for.
int acl_of(int file, std::string& into);

}  // namespace zc
