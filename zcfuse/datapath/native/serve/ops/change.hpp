// The operations that change a tree, below a directory lease on a mount that is writable. As in
// operation.hpp, each function has its own file. All act as the client that asked.
//
// Requests outside a mirror or a union with an upper layer go up to control, which refuses them
// with EROFS: another mount, a path that control keeps.
#pragma once

#include <cstdint>
#include <vector>

#include "abi/fuse_changes.hpp"
#include "serve/caller.hpp"
#include "serve/ops/operation.hpp"
#include "sys/changes.hpp"

namespace zc::ops {

// A name in a directory that is to be changed.
struct Spot {
    std::shared_ptr<const Directory> directory;
    const char* name = nullptr;
    std::uint64_t parent = 0;

    int fd() const noexcept { return directory->at->descriptor(); }
    // nullptr: a change of the directory is a change of the real one.
    const UnionDirectory* as_union() const noexcept { return directory->at->as_union(); }
    Link link() const { return {parent, name}; }
};
// Each returns 0, -errno, or kUpcall for what control answers for. find_parent() names nothing yet.
int find_parent(Context& context, std::uint64_t parent, Spot& into);
int find_spot(Context& context, std::uint64_t parent, const char* name, Spot& into);

// When the client's supplementary groups are read.
enum class Groups : bool { where_refused, at_once };

// Runs `attempt`, which returns 0 or -errno, as the client.
template <typename Try>
int as_caller(Context& context, const Request& request, Groups groups, Try attempt) {
    AsCaller caller(context.identity, request.header);
    if (caller.error() != 0) {
        return caller.error();
    }
    if (groups == Groups::at_once) {
        caller.take_groups();
    }
    auto result = attempt();
    if ((result == -EACCES || result == -EPERM) && caller.take_groups()) {
        result = attempt();
    }
    return static_cast<int>(result);
}
// Where the set-group-id bit of `mode` depends on whether the client is in the group.
inline Groups groups_for(std::uint32_t mode) noexcept {
    return (mode & S_ISGID) != 0 ? Groups::at_once : Groups::where_refused;
}

// Makes a file as the client: `attempt` gets the directory and the name to make it under.
template <typename Try>
int make_as_caller(Context& context, const Request& request, const Spot& spot, Groups groups,
                   bool is_directory, Try attempt) {
    const auto* merged = spot.as_union();
    if (merged == nullptr) {
        return as_caller(context, request, groups, [&] { return attempt(spot.fd(), spot.name); });
    }
    Making making;
    making.is_directory = is_directory;
    int error = merged->begin_making(spot.name, making);
    if (error == 0) {
        error = as_caller(context, request, groups,
                          [&] { return attempt(making.directory, making.name); });
    }
    return merged->finish_making(making, is_directory, error);
}

// A descriptor that can change a node: the one that clients have open, or one opened for this.
class Held {
  public:
    // `attributes`: the bytes of the file do not change.
    enum class Use : std::uint8_t { look, attributes, change };
    int open(Context& context, std::uint64_t nodeid, Use use = Use::change);
    int get() const noexcept { return lease_ ? lease_->whole_file()->get() : own_.get(); }
    // The clients' open file, which permits changes whatever the mode says now; nullptr without
    // one.
    const OpenFiles::File& writer() const noexcept { return writer_; }

  private:
    OpenFiles::Lease lease_;
    OpenFiles::File writer_;
    sys::UniqueFd own_;
};

// Keeps a file without a name for a successor, if one may come.
void keep_nameless(Context& context, std::uint64_t nodeid, int file);
// The file of a name that a change takes away. If that name is the last one, the file is kept until
// the kernel forgets the node (nodes/orphans.hpp). A file that clients have open is kept for a
// successor alone. An open metacopy is kept too, because the open file is another one.
class Orphaned {
  public:
    Orphaned() = default;
    Orphaned(const Orphaned&) = delete;
    Orphaned& operator=(const Orphaned&) = delete;
    // Without stays() the file is given up again: it has its name.
    ~Orphaned();
    // For each node that the kernel knows the file by, also those of what it is a copy of.
    void take(Context& context, const Spot& spot, const Found& found);
    void stays() noexcept { nodes_.clear(); }

  private:
    Orphans* orphans_ = nullptr;
    std::vector<std::uint64_t> nodes_;
};

// Whether the rename that a record is about is made; notes the new names of one that is.
bool was_renamed(Context& context, const ChangeMemory::Change& change, const Spot& from,
                 const Spot& to);
void note_renamed(Context& context, const ChangeMemory::Change& change, const Spot& from,
                  const Spot& to);

// Counts a name that was just made as looked up, and answers with it. `linked`: the node that it is
// another name of.
bool answer_made(Context& context, const Request& request, const Spot& spot,
                 std::uint64_t linked = 0);

bool create(Context& context, const Request& request);
bool tmpfile(Context& context, const Request& request);
bool mknod(Context& context, const Request& request);
bool mkdir(Context& context, const Request& request);
bool symlink(Context& context, const Request& request);
bool link(Context& context, const Request& request);
bool unlink(Context& context, const Request& request);
bool rename(Context& context, const Request& request);
bool setattr(Context& context, const Request& request);
bool setxattr(Context& context, const Request& request);
bool removexattr(Context& context, const Request& request);
bool write(Context& context, const Request& request);
bool fsync(Context& context, const Request& request);
bool fsyncdir(Context& context, const Request& request);
bool syncfs(Context& context, const Request& request);
bool ioctl(Context& context, const Request& request);
bool fallocate(Context& context, const Request& request);
bool copy_file_range(Context& context, const Request& request);

// Answers what changes a tree; false for what goes up.
bool change(Context& context, const Request& request);

}  // namespace zc::ops
