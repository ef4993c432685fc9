#include "serve/read.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>

#include "sys/files.hpp"

namespace zc {

namespace {

constexpr std::size_t kSlicesReserved = 64;
// Of a READ: more than the largest one takes from memory.
constexpr std::chrono::milliseconds kWait{2};
constexpr std::chrono::milliseconds kWary{1000};

// The request was withdrawn or the connection is over: no client waits for the reply.
bool nobody_waits(ssize_t error) noexcept {
    return error == -ENOENT || error == -ENODEV || error == -ECONNABORTED || error == -EPIPE ||
           error == -ENOTCONN;
}

}  // namespace

Reader::Reader(const ReadPolicy& policy, std::shared_ptr<WindowCache> windows,
               std::shared_ptr<LockBudget> budget, std::shared_ptr<ThreadCounts> counts)
    : policy_(policy),
      windows_(std::move(windows)),
      budget_(std::move(budget)),
      counts_(std::move(counts)),
      pipe_(policy.max_read),
      buffer_(policy.max_read + sys::page_bytes(), policy.prefault, *budget_) {
    slices_.reserve(kSlicesReserved);
}

Served Reader::serve(const Channel& channel, std::uint64_t unique, const abi::ReadIn& request,
                     const FileLease& lease) {
    const Job job{channel, unique, request.size};
    if (request.size > policy_.max_read) {
        fail(job, Path::pool, -EINVAL);
        return served_;
    }
    lease.slices(request.offset, request.size, slices_);
    const Path path = plan_read(policy_, lease, request.size, Takes::pages, *counts_);
    NotServed why;
    if (path == Path::splice) {
        why = by_splice(job);
    } else if (path == Path::mmap) {
        why = by_mmap(job);
        held_.clear();
    } else {
        by_pool(job);
    }
    if (why) {
        counts_->because(*why);
        by_pool(job);
    }
    return served_;
}

std::optional<Served> Reader::serve_at_once(const Channel& channel, std::uint64_t unique,
                                            const abi::ReadIn& request, const FileLease& lease,
                                            ReadSlots& slots) {
    if (!lease.reads_promptly()) {
        return {};
    }
    if (request.size > policy_.max_read) {
        return serve(channel, unique, request, lease);  // refuses it
    }
    lease.slices(request.offset, request.size, slices_);
    const auto path = path_of_read(policy_, lease, request.size, Takes::pages);
    if (path == Path::pool) {
        const auto payload = gather(sys::preadv_nowait);
        if (payload == -EAGAIN) {
            return {};
        }
        plan_read(policy_, lease, request.size, Takes::pages, *counts_);
        reply_from_buffer({channel, unique, request.size}, payload);
        return served_;
    }
    // What is in memory may go before it is sent, or just be coming from a disk.
    const ReadSlots::Held slot(slots);
    if (!slot || (path == Path::splice && may_wait())) {
        return {};
    }
    const auto began = Clock::now();
    const auto served = serve(channel, unique, request, lease);
    note_wait(Clock::now() - began);
    return served;
}

// The question costs a small READ an eighth of its time, so it is asked only after a READ that
// waited.
bool Reader::may_wait() noexcept {
    if (wary_until_ms_ == 0 || sys::coarse_milliseconds() >= wary_until_ms_) {
        return false;
    }
    const bool in_memory = std::all_of(slices_.begin(), slices_.end(), [](const Slice& slice) {
        return sys::seems_in_memory(slice.fd, slice.offset, slice.size);
    });
    if (!in_memory) {
        note_wait(kWait);
    }
    return !in_memory;
}

void Reader::note_wait(Clock::duration taken) noexcept {
    if (taken >= kWait) {
        wary_until_ms_ = sys::coarse_milliseconds() + kWary.count();
    }
}

bool Reader::fits() const noexcept {
    std::size_t slots = 0;
    for (const auto& slice : slices_) {
        slots += ReplyPipe::slots_of(slice.offset, slice.size);
    }
    return pipe_.fits(slots);
}

// Moves a slice from its file into the pipe, by reference to the pages of the file's cache. The
// bytes moved, fewer where the file ends, or -errno.
ssize_t Reader::move(const Slice& slice, PathCounts& counts) {
    std::size_t have = 0;
    while (have < slice.size) {
        const auto n = pipe_.splice(slice.fd, slice.offset + have, slice.size - have);
        counts.calls.add();
        if (n < 0) {
            return n;
        }
        if (n == 0) {
            break;
        }
        have += static_cast<std::size_t>(n);
        if (have < slice.size) {
            counts.short_calls.add();
        }
    }
    return static_cast<ssize_t>(have);
}

// Backing files to pipe to channel, extent by extent into one reply.
Reader::NotServed Reader::by_splice(const Job& job) {
    if (!pipe_.usable()) {
        pipe_.renew();
        return Reason::splice_no_pipe;
    }
    if (!fits()) {
        return Reason::splice_pipe_too_short;
    }
    auto& counts = counts_->path(Path::splice);
    counts.calls.add();
    if (pipe_.put_header(job.unique) != static_cast<ssize_t>(sizeof(abi::OutHeader))) {
        pipe_.renew();
        return Reason::splice_no_pipe;
    }
    std::size_t payload = 0;
    for (const auto& slice : slices_) {
        const auto n = move(slice, counts);
        if (n < 0) {
            pipe_.renew();
            if (n == -EAGAIN) {
                return Reason::splice_pipe_too_short;
            }
            if (n == -EINVAL) {
                return Reason::splice_refused;
            }
            fail(job, Path::splice, static_cast<int>(n));
            return {};
        }
        payload += static_cast<std::size_t>(n);
        if (static_cast<std::size_t>(n) < slice.size) {
            break;  // the file ends here: what follows would be at the wrong offset
        }
    }
    return reply_from_pipe(job, Path::splice, payload);
}

// Finds the windows of all slices, before anything is in the pipe.
Reader::NotServed Reader::hold_windows(PathCounts& counts) {
    held_.clear();
    for (const auto& slice : slices_) {
        std::uint64_t file_size = 0;
        counts.calls.add();
        if (sys::file_size(slice.fd, file_size) < 0 || file_size <= slice.offset) {
            return Reason::mmap_beyond_end;
        }
        const auto size =
            static_cast<std::size_t>(std::min<std::uint64_t>(slice.size, file_size - slice.offset));
        held_.push_back({windows_->acquire({slice.id, slice.fd}, slice.offset, size), size});
        const auto& window = held_.back().window;
        if (window.error != 0) {
            return window.error == -EFAULT      ? Reason::mmap_beyond_end
                   : window.error == -ETIMEDOUT ? Reason::mmap_not_prefaulted
                                                : Reason::mmap_refused;
        }
        if (!window.locked) {
            counts_->because(Reason::mmap_unlocked);
        }
        if (size < slice.size) {
            break;  // the file ends here: what follows would be at the wrong offset
        }
    }
    return {};
}

// From mapped windows of the backing files, by reference. A fault comes in vmsplice, where it can
// still be answered otherwise: given to writev it would have failed the request in the kernel.
Reader::NotServed Reader::by_mmap(const Job& job) {
    if (slices_.empty()) {
        return Reason::mmap_beyond_end;
    }
    if (!pipe_.usable()) {
        pipe_.renew();
        return Reason::mmap_no_pipe;
    }
    if (!fits()) {
        return Reason::mmap_pipe_too_short;
    }
    auto& counts = counts_->path(Path::mmap);
    if (const auto why = hold_windows(counts)) {
        return why;
    }
    counts.calls.add(1 + held_.size());
    if (pipe_.put_header(job.unique) != static_cast<ssize_t>(sizeof(abi::OutHeader))) {
        pipe_.renew();
        return Reason::mmap_no_pipe;
    }
    std::size_t payload = 0;
    for (const auto& [window, size] : held_) {
        const auto n = pipe_.map({window.pieces.data(), static_cast<std::size_t>(window.count)});
        if (n != static_cast<ssize_t>(size)) {
            counts.short_calls.add(n > 0 ? 1 : 0);
            pipe_.renew();
            return n == -EAGAIN ? Reason::mmap_pipe_too_short : Reason::mmap_beyond_end;
        }
        payload += size;
    }
    return reply_from_pipe(job, Path::mmap, payload);
}

// Through a locked buffer: two copies, but no page fault, and nothing that can be refused.
void Reader::by_pool(const Job& job) {
    reply_from_buffer(job, gather(sys::preadv));
}

// Reads the slices into the buffer, to the end of the request or of the file. The bytes, or -errno.
ssize_t Reader::gather(Read read) {
    auto& counts = counts_->path(Path::pool);
    buffer_.fresh();
    std::size_t payload = 0;
    for (const auto& slice : slices_) {
        std::size_t have = 0;
        while (have < slice.size) {
            const std::array<iovec, 1> into{{{buffer_.data() + payload, slice.size - have}}};
            const auto n = read(slice.fd, into, slice.offset + have);
            counts.calls.add();
            if (n < 0) {
                return n;
            }
            if (n == 0) {
                break;
            }
            counts.copied_in.add(static_cast<std::uint64_t>(n));
            have += static_cast<std::size_t>(n);
            payload += static_cast<std::size_t>(n);
            if (have < slice.size) {
                counts.short_calls.add();
            }
        }
        if (have < slice.size) {
            break;  // the file ends here: what follows would be at the wrong offset
        }
    }
    return static_cast<ssize_t>(payload);
}

// Sends the first bytes of the buffer, or an error (-errno).
void Reader::reply_from_buffer(const Job& job, ssize_t payload) {
    auto& counts = counts_->path(Path::pool);
    if (!buffer_.locked()) {
        counts_->because(Reason::pool_unlocked);
    }
    if (payload < 0) {
        fail(job, Path::pool, static_cast<int>(payload));
        return;
    }
    const auto size = static_cast<std::size_t>(payload);
    abi::OutHeader header{static_cast<std::uint32_t>(sizeof(abi::OutHeader) + size), 0, job.unique};
    const std::array<iovec, 2> pieces{{{&header, sizeof header}, {buffer_.data(), size}}};
    const auto sent = job.channel.reply(pieces);
    counts.calls.add();
    if (sent > 0) {
        counts.copied_out.add(static_cast<std::uint64_t>(sent) - sizeof header);
    }
    finish(job, Path::pool, size, sent);
}

Reader::NotServed Reader::reply_from_pipe(const Job& job, Path path, std::size_t payload) {
    pipe_.patch(payload);
    const auto whole = sizeof(abi::OutHeader) + payload;
    const auto sent = job.channel.reply_from_pipe(pipe_.read_end(), whole, buffer_.bytes());
    counts_->path(path).calls.add();
    if (sent != static_cast<ssize_t>(whole)) {
        pipe_.renew();
    }
    finish(job, path, payload, sent);
    return {};
}

void Reader::finish(const Job& job, Path path, std::size_t payload, ssize_t sent) {
    auto& counts = counts_->path(path);
    served_ = {path, sent >= 0 ? payload : 0};
    if (sent >= 0) {
        counts.requests.add();
        counts.bytes.add(payload);
        return;
    }
    if (nobody_waits(sent)) {
        counts.refused.add();
        return;
    }
    // The kernel ends a request whose reply it could not take, so a second one is mostly answered
    // ENOENT; where it did not get as far as the header, it is what keeps the client from waiting.
    fail(job, path, static_cast<int>(sent));
}

void Reader::fail(const Job& job, Path path, int error) {
    auto& counts = counts_->path(path);
    served_ = {path, 0};
    counts.errors.add();
    counts.calls.add();
    if (const auto sent = job.channel.reply_error(job.unique, error); sent < 0) {
        counts.refused.add();
    }
}

}  // namespace zc
