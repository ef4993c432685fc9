// The changes that clients make to a directory of a union with an upper layer.
//
// Every change goes to the upper layer. A name that a layer below has is copied up before it is
// changed, and covered by a whiteout when it is removed, as the kernel's overlayfs does
// (fs/overlayfs/dir.c), so that either can mount what the other wrote. Where overlayfs refuses,
// with its defaults or with redirect_dir=on, this refuses with the same errno.
//
// Threads: any. One change of names at a time: a Making holds the lock of the upper layer from
// begin_making() to finish_making(). The bytes of a file are copied outside of that lock.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "serve/nodes/identity.hpp"
#include "sys/unique_fd.hpp"

namespace zc {

// Which bytes a copy in the upper layer gets: none where the next call truncates the file; later:
// those of a change of attributes, in a union that makes metacopies.
enum class CopiedBytes : std::uint8_t { none, later, all };

// The place where a new file is made: the directory itself. If a whiteout has the name, it is a
// directory of the same owner and mode, and finish_making() moves the file over the whiteout.
struct Making {
    bool is_directory = false;
    int directory = -1;
    const char* name = nullptr;
    std::unique_lock<std::mutex> lock;
    sys::UniqueFd nursery;
    std::string nursery_name;  // in the work directory
};

// A file in the upper layer. `record`: that of a new copy in the memory of copies; 0: none.
struct Copied {
    Identity identity;
    std::uint64_t record = 0;
};

class UnionDirectory {
  public:
    UnionDirectory() = default;
    UnionDirectory(const UnionDirectory&) = delete;
    UnionDirectory& operator=(const UnionDirectory&) = delete;

    // Whether the upper layer has this directory. The other functions need it.
    virtual bool is_raised() const noexcept = 0;
    // Makes the upper layer have the directory called `name`.
    virtual int raise(const char* name) const = 0;
    // Copies a file up, unless the upper layer has it, and its bytes unless they may come later;
    // `into` is then what it is there. -ESTALE where the name shows another file by now.
    virtual int copy_up(const char* name, const Identity& wanted, CopiedBytes bytes,
                        Copied& into) const = 0;
    // `made`: what making the file in `making.directory` has returned.
    virtual int begin_making(const char* name, Making& into) const = 0;
    virtual int finish_making(Making& making, bool is_directory, int made) const = 0;
    // Finishes a directory that an earlier process made, as far as it came.
    virtual int complete_directory(const char* name) const = 0;
    // `of`: the identity of the file.
    virtual int link(int file, const Identity& of, const char* name) const = 0;
    virtual int remove(const char* name, bool is_directory) const = 0;
    // `to`: of the same union. What it moves was copied up, or made by raise().
    virtual int rename(const char* name, const UnionDirectory& to, const char* new_name,
                       unsigned flags) const = 0;

  protected:
    ~UnionDirectory() = default;
};

}  // namespace zc
