#include "serve/ring_reader.hpp"

#include <array>
#include <cerrno>

namespace zc {

namespace {

constexpr std::size_t kSlicesReserved = 64;

}  // namespace

RingReader::RingReader(const ReadPolicy& policy, std::shared_ptr<ThreadCounts> counts)
    : policy_(policy), counts_(std::move(counts)) {
    slices_.reserve(kSlicesReserved);
}

bool RingReader::serve(ReadJob& job, Wait wait) {
    auto& counts = counts_->path(Path::pool);
    if (job.request.size > policy_.max_read) {
        fail(job, -EINVAL);
        return true;
    }
    const auto payload = job.channel->payload(job.unique);
    if (payload.size() < job.request.size) {
        counts.refused.add();  // no client waits for it any more
        return true;
    }
    job.lease->slices(job.request.offset, job.request.size, slices_);
    if (const int error = gather(job, payload.data(), wait); error < 0) {
        if (error == -EAGAIN && wait == Wait::never) {
            return false;
        }
        fail(job, error);
        return true;
    }
    plan_read(policy_, *job.lease, job.request.size, Takes::bytes, *counts_);
    if (job.have > job.channel->locked_payload()) {  // an entry has room for the largest requests
        counts_->because(Reason::pool_unlocked);
    }
    abi::OutHeader header{static_cast<std::uint32_t>(sizeof header + job.have), 0, job.unique};
    const std::array<iovec, 2> pieces{{{&header, sizeof header}, {payload.data(), job.have}}};
    if (job.channel->reply(pieces) < 0) {
        counts.refused.add();
        return true;
    }
    counts.requests.add();
    counts.bytes.add(job.have);
    job.served.bytes = job.have;
    return true;
}

// Goes on where job.have says, to the end of the request or of the file. 0 or -errno.
int RingReader::gather(ReadJob& job, std::byte* into, Wait wait) noexcept {
    std::size_t begin = 0;  // of the slice, within the request
    for (const auto& slice : slices_) {
        while (job.have < begin + slice.size) {
            const auto n = read_more(slice, job.have - begin, into + job.have, wait);
            if (n < 0) {
                return static_cast<int>(n);
            }
            if (n == 0) {
                return 0;  // the file ends here: what follows would be at the wrong offset
            }
            job.have += static_cast<std::size_t>(n);
        }
        begin += slice.size;
    }
    return 0;
}

ssize_t RingReader::read_more(const Slice& slice, std::size_t done, std::byte* into,
                              Wait wait) noexcept {
    auto& counts = counts_->path(Path::pool);
    const auto wanted = slice.size - done;
    const std::array<iovec, 1> piece{{{into, wanted}}};
    const auto n = wait == Wait::never ? sys::preadv_nowait(slice.fd, piece, slice.offset + done)
                                       : sys::preadv(slice.fd, piece, slice.offset + done);
    counts.calls.add();
    if (n > 0) {
        counts.copied_in.add(static_cast<std::uint64_t>(n));
        counts.short_calls.add(static_cast<std::size_t>(n) < wanted ? 1 : 0);
    }
    return n;
}

void RingReader::fail(const ReadJob& job, int error) noexcept {
    auto& counts = counts_->path(Path::pool);
    counts.errors.add();
    if (job.channel->reply_error(job.unique, error) < 0) {
        counts.refused.add();
    }
}

}  // namespace zc
