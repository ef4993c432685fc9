// Writes a union's upper layer: copies, whiteouts, opaque directories.
//
// This process alone uses the work directory. It makes each copy there, and one link(2) or
// rename(2) gives the copy its name. A crash leaves the old file or the whole new one. The next
// mount empties the work directory, and so does a successor of this process.
//
// Threads: any. A change of names needs lock(); a copy does not.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "serve/sources/copy_numbers.hpp"
#include "serve/sources/source.hpp"
#include "serve/sources/union_directory.hpp"
#include "serve/surviving/copy_memory.hpp"
#include "sys/unique_fd.hpp"

namespace zc {

// A file or directory of a layer.
struct LayerFile {
    const SourceDirectory& directory;
    const char* name;
    Identity identity;  // as the layer has it
};

// Where a copy of a file goes. `original`: as the union has it. `number`: the inode number that
// clients saw; they go on seeing it if no other name has it. `replaces`: the original has that name
// there, and is a metacopy. `metacopy`: the bytes stay with the original.
struct CopyPlace {
    const SourceDirectory& upper;
    const char* name;
    Identity original;
    std::uint64_t number;
    bool replaces;
    bool metacopy;
};

class UpperLayer {
  public:
    // `work`: on the filesystem of the upper layer. `trusted`: its marks are `trusted.` attributes,
    // which only a process with CAP_SYS_ADMIN sees, and not `user.` ones.
    // `memory`: records the copies for a successor; nullptr: none comes.
    UpperLayer(sys::UniqueFd work, bool trusted, std::shared_ptr<CopyMemory> memory);

    std::unique_lock<std::mutex> lock() const { return std::unique_lock(lock_); }

    // Each of these returns 0 or -errno, and kUpcall for a file that control has to open.
    // The copy of a directory is empty. -EEXIST where `to` has the name by now.
    int copy_directory(const LayerFile& from, int to, const char* name) const;
    // A regular file gets the bytes in `extents`. `record`: the copy's in the memory.
    int copy_file(const LayerFile& from, const std::vector<Extent>& extents, const CopyPlace& to,
                  std::uint64_t& record) const;
    // The number that clients see of a copy that this process made; 0: its own.
    std::uint64_t number_of(const struct ::statx& status) const { return numbers_.of(status); }

    // The rest is called with the lock held.
    static int cover(int directory, const char* name);  // by a whiteout
    int set_opaque(int directory, const char* name) const;
    // Says where the layers below have the directory.
    static int set_redirect(int directory, const char* name, std::string_view leads_to);
    // Puts a whiteout in the place of a file, or of a directory with its contents.
    int replace_by_whiteout(int directory, const char* name, bool is_directory) const;
    // Removes a directory that shows nothing, with the whiteouts in it.
    int remove_directory(int directory, const char* name) const;
    // Takes the whiteouts out of an opaque directory.
    int empty(int directory, const char* name) const;
    int link_over_whiteout(int file, int directory, const char* name) const;
    // A directory with the owner, mode and ACLs of another.
    int make_nursery(int like, Making& into) const;
    void drop_nursery(Making& making) const;

  private:
    std::string new_name() const;
    struct Copy {
        const struct ::statx& status;  // of the original
        const CopyPlace& to;
        std::uint64_t& record;
    };
    int copy_regular(const LayerFile& from, const std::vector<Extent>& extents,
                     const Copy& copy) const;
    int fill(int file, const std::vector<Extent>& extents, const Copy& copy) const;
    int copy_special(const LayerFile& from, const Copy& copy) const;
    int note(int file, const Copy& copy) const;
    void drop(const std::string& made, const Copy& copy) const;
    int make_special(const LayerFile& from, const struct ::statx& status, const char* name) const;
    int copy_attributes(const LayerFile& from, const struct ::statx& status, int to) const;
    int copy_xattrs(const LayerFile& from, int to) const;
    int place(const std::string& made, int to, const char* name) const;
    int replace(const std::string& made, const Copy& copy) const;

    const sys::UniqueFd work_;
    const bool trusted_;
    const std::shared_ptr<CopyMemory> memory_;
    mutable std::mutex lock_;
    mutable std::atomic<std::uint64_t> last_name_{0};
    mutable CopyNumbers numbers_;
};

}  // namespace zc
