// Serves READ on a ring: preadv straight into the payload buffer of the request's entry. The
// process copies the bytes once; the reply's system call copies none. A ring takes no pages by
// reference, so the paths `mmap` and `splice` fall back to this and record the reason.
//
// Each thread has one RingReader. A queue's thread reads only from memory (Wait::never), since all
// requests of its CPU queue behind it. A read that would wait goes to a reading worker
// (read_workers.hpp).
#pragma once

#include <memory>
#include <vector>

#include "serve/config.hpp"
#include "serve/lease.hpp"
#include "serve/ledger.hpp"
#include "serve/read_job.hpp"
#include "serve/read_plan.hpp"

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
