#include "serve/ring_reader.hpp"

#include <array>
#include <cerrno>

namespace zc {

namespace {

constexpr std::size_t kSlicesReserved = 64;

}  // namespace

RingReader::RingReader(Mode mode, std::size_t splice_min, std::size_t max_read,
                       std::shared_ptr<ThreadCounts> counts)
    : mode_(mode), splice_min_(splice_min), max_read_(max_read), counts_(std::move(counts)) {
    slices_.reserve(kSlicesReserved);
}

bool RingReader::serve(const ReadJob& job, Wait wait) {
    auto& counts = counts_->path(Path::pool);
    if (job.request.size > max_read_) {
        fail(job, -EINVAL);
        return true;
    }
    const auto payload = job.channel->payload(job.unique);
    if (payload.size() < job.request.size) {
        counts.refused.add();  // nobody waits for it any more
        return true;
    }
    job.lease->slices(job.request.offset, job.request.size, slices_);
    std::size_t have = 0;
    for (const auto& slice : slices_) {
        const auto n = fill(slice, payload.data() + have, wait);
        if (n == -EAGAIN && wait == Wait::never) {
            return false;
        }
        if (n < 0) {
            fail(job, static_cast<int>(n));
            return true;
        }
        have += static_cast<std::size_t>(n);
        if (static_cast<std::size_t>(n) < slice.size) {
            break;  // the file ends here: what follows would be at the wrong offset
        }
    }
    say_why(job);
    abi::OutHeader header{static_cast<std::uint32_t>(sizeof header + have), 0, job.unique};
    const std::array<iovec, 2> pieces{{{&header, sizeof header}, {payload.data(), have}}};
    if (job.channel->reply(pieces) < 0) {
        counts.refused.add();
        return true;
    }
    counts.requests.add();
    counts.bytes.add(have);
    return true;
}

// All of a slice, or what there is of it. Returns the bytes or -errno.
ssize_t RingReader::fill(const Slice& slice, std::byte* into, Wait wait) noexcept {
    auto& counts = counts_->path(Path::pool);
    std::size_t have = 0;
    while (have < slice.size) {
        const std::array<iovec, 1> piece{{{into + have, slice.size - have}}};
        const auto n = wait == Wait::never
                           ? sys::preadv_nowait(slice.fd, piece, slice.offset + have)
                           : sys::preadv(slice.fd, piece, slice.offset + have);
        counts.calls.add();
        if (n < 0) {
            return n;
        }
        if (n == 0) {
            break;
        }
        counts.copied_in.add(static_cast<std::uint64_t>(n));
        have += static_cast<std::size_t>(n);
        counts.short_calls.add(have < slice.size ? 1 : 0);
    }
    return static_cast<ssize_t>(have);
}

void RingReader::say_why(const ReadJob& job) noexcept {
    counts_->because(Reason::pool_unlocked);  // an entry has room for the largest of requests
    if (job.lease->passthrough()) {
        counts_->because(Reason::read_of_passthrough_file);
    }
    if (mode_ == Mode::mmap) {
        counts_->because(Reason::mmap_not_over_uring);
    } else if (mode_ == Mode::splice || (mode_ != Mode::pool && job.request.size >= splice_min_)) {
        counts_->because(Reason::splice_not_over_uring);
    } else if (mode_ != Mode::pool) {
        counts_->because(Reason::splice_too_small);
    }
}

void RingReader::fail(const ReadJob& job, int error) noexcept {
    auto& counts = counts_->path(Path::pool);
    counts.errors.add();
    if (job.channel->reply_error(job.unique, error) < 0) {
        counts.refused.add();
    }
}

}  // namespace zc
