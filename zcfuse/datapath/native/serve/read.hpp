// READ: serves the bytes of a leased file by the best path for the request.
//
// Each serving thread has a Reader, which owns the thread's pipe and buffer without locks. The
// lease is shared with other readers of the same file and immutable. A READ may race with:
//   - an outsider who truncates the file: a short read, as natively. This process never
//     touches a byte of a mapping, so it gets no SIGBUS; vmsplice reports EFAULT before anything is
//     sent.
//   - a revoke: the lease that this READ holds stays whole until the reply is out.
//   - an abort or a killed client: the kernel refuses the reply with ENOENT, which is counted.
// In each case the reader answers the request exactly once, and leaves the pipe empty.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "abi/fuse.hpp"
#include "serve/config.hpp"
#include "serve/lease.hpp"
#include "serve/ledger.hpp"
#include "serve/pipe.hpp"
#include "serve/pool_buffer.hpp"
#include "serve/read_job.hpp"
#include "serve/read_plan.hpp"
#include "serve/windows.hpp"
#include "transport/channel.hpp"

namespace zc {

class Reader {
  public:
    Reader(const ReadPolicy& policy, std::shared_ptr<WindowCache> windows,
           std::shared_ptr<LockBudget> budget, std::shared_ptr<ThreadCounts> counts);

    // Answers, once, whatever it has to wait for.
    Served serve(const Channel& channel, std::uint64_t unique, const abi::ReadIn& request,
                 const FileLease& lease);
    // The same from memory only, as far as can be told; or returns nothing, with nothing answered.
    // A READ by reference may wait for its disk if none has lately, and holds a slot meanwhile.
    std::optional<Served> serve_at_once(const Channel& channel, std::uint64_t unique,
                                        const abi::ReadIn& request, const FileLease& lease,
                                        ReadSlots& slots);

    std::size_t pipe_slots() const noexcept { return pipe_.slots(); }
    const PoolBuffer& buffer() const noexcept { return buffer_; }

  private:
    struct Job {
        const Channel& channel;
        std::uint64_t unique;
        std::size_t size;
    };
    struct Held {
        Acquired window;
        std::size_t size;
    };
    // The reason why this path sent nothing and another path must answer.
    using NotServed = std::optional<Reason>;

    bool fits() const noexcept;
    ssize_t move(const Slice& slice, PathCounts& counts);
    NotServed hold_windows(PathCounts& counts);
    NotServed by_splice(const Job& job);
    NotServed by_mmap(const Job& job);
    void by_pool(const Job& job);
    using Read = ssize_t (*)(int, std::span<const iovec>, std::uint64_t) noexcept;
    ssize_t gather(Read read);
    void reply_from_buffer(const Job& job, ssize_t payload);
    bool may_wait() noexcept;
    void note_wait(Clock::duration taken) noexcept;
    NotServed reply_from_pipe(const Job& job, Path path, std::size_t payload);
    void finish(const Job& job, Path path, std::size_t payload, ssize_t sent);
    void fail(const Job& job, Path path, int error);

    ReadPolicy policy_;
    std::shared_ptr<WindowCache> windows_;
    std::shared_ptr<LockBudget> budget_;
    std::shared_ptr<ThreadCounts> counts_;
    ReplyPipe pipe_;
    PoolBuffer buffer_;          // a page larger than the largest READ, for a header over a socket
    std::vector<Slice> slices_;  // of the request at hand; here so that it is allocated once
    std::vector<Held> held_;     // likewise
    Served served_;              // how the request at hand was answered
    std::int64_t wary_until_ms_ = 0;
};

}  // namespace zc
