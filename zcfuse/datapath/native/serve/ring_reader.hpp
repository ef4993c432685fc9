// READ on a ring: preadv straight into the payload buffer of the request's entry, one copy by the
// process and none by a reply's system call. A ring takes nothing by reference, so the paths `mmap`
// and `splice` end here too, and say so.
//
// One RingReader a thread. A queue's thread reads only what is in memory (Wait::never), since all
// requests of its CPU stand behind it; what would have to be waited for goes to a reading worker
// (read_workers.hpp), which waits.
#pragma once

#include <memory>
#include <vector>

#include "serve/config.hpp"
#include "serve/lease.hpp"
#include "serve/ledger.hpp"
#include "serve/read_plan.hpp"
#include "serve/read_queue.hpp"

namespace zc {

class RingReader {
  public:
    enum class Wait : std::uint8_t { never, allowed };

    RingReader(const ReadPolicy& policy, std::shared_ptr<ThreadCounts> counts);

    // Answers, once; or returns false, with nothing answered, when it would have to wait. The job
    // then says how much is there, for whoever goes on with it.
    bool serve(ReadJob& job, Wait wait);

  private:
    int gather(ReadJob& job, std::byte* into, Wait wait) noexcept;
    ssize_t read_more(const Slice& slice, std::size_t done, std::byte* into, Wait wait) noexcept;
    void fail(const ReadJob& job, int error) noexcept;

    const ReadPolicy policy_;
    std::shared_ptr<ThreadCounts> counts_;
    std::vector<Slice> slices_;  // of the request at hand; here so that it is allocated once
};

}  // namespace zc
