// A way to move a file's bytes to a sink, and its counts. The constructor does the one-time work
// (buffers, pipes, rings); run() moves the bytes and is measured. One thread uses a method. A
// refused system call throws std::system_error.
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
    std::size_t block = 0;  // bytes per call, a multiple of the page size
};

// Sums of system calls' return values. Calls that pass references count only in `delivered`.
struct Tally {
    std::uint64_t delivered = 0;
    std::uint64_t copied_in = 0;      // into the client's memory by the CPU; DMA does not count
    std::uint64_t copied_out = 0;     // out of it; write(2) to /dev/null copies nothing
    std::uint64_t copied_late = 0;    // sent by reference, then copied and reported by the kernel
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

    // Moves job.size bytes, or fewer if the file ends, and returns when their memory may be reused.
    // Throws std::system_error.
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
