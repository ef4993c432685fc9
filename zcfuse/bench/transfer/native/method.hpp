// A way to move a file's bytes to a sink, and what it counts while it does. A method gets all that
// is paid once (buffers, pipes, rings) in its constructor and moves the bytes in run(), which is
// what is measured. It is used by one thread; a system call that is refused is a std::system_error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace zc::transfer {

enum class SinkKind { null_device, socket, file };

struct Job {
    std::string path;
    int sink = -1;  // the caller's
    SinkKind kind = SinkKind::null_device;
    std::uint64_t size = 0;
    std::size_t block = 0;  // of a call, in bytes: a multiple of the page size
};

// Sums of system calls' return values. What passes references is in `delivered` only.
struct Tally {
    std::uint64_t delivered = 0;
    std::uint64_t copied_in = 0;      // into the client's memory by the CPU; DMA is no copy
    std::uint64_t copied_out = 0;     // out of it; write(2) to /dev/null takes no byte
    std::uint64_t copied_late = 0;    // sent by reference, then copied by the kernel as it told
    std::uint64_t copied_inside = 0;  // from page to page in the kernel
    std::uint64_t calls = 0;
    std::string note;
};

class Method {
  public:
    Method() = default;
    Method(const Method&) = delete;
    Method& operator=(const Method&) = delete;
    virtual ~Method() = default;

    // Moves job.size bytes, fewer where the file ends before, and returns when the memory that they
    // came from may be used again. Throws std::system_error.
    virtual void run(Tally& tally) = 0;
};

std::unique_ptr<Method> read_write(const Job& job);
std::unique_ptr<Method> mmap_write(const Job& job);
std::unique_ptr<Method> sendfile(const Job& job);
std::unique_ptr<Method> splice(const Job& job);
std::unique_ptr<Method> splice_move(const Job& job);
std::unique_ptr<Method> uring_splice(const Job& job);
std::unique_ptr<Method> uring_fixed(const Job& job);
std::unique_ptr<Method> zerocopy_send(const Job& job);
std::unique_ptr<Method> vmsplice(const Job& job);
std::unique_ptr<Method> direct_read(const Job& job);
std::unique_ptr<Method> copy_file_range(const Job& job);

}  // namespace zc::transfer
