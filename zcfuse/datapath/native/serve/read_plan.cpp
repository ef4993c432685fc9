#include "serve/read_plan.hpp"

namespace zc {

Path plan_read(const ReadPolicy& policy, const FileLease& lease, std::size_t size, Takes takes,
               ThreadCounts& counts) noexcept {
    if (lease.passthrough()) {
        counts.because(Reason::passthrough_read);
    }
    const auto mode = lease.mode().value_or(policy.mode);
    const bool pages = takes == Takes::pages;
    if (mode == Mode::pool) {
        return Path::pool;
    }
    if (mode == Mode::mmap) {
        if (!pages) {
            counts.because(Reason::mmap_not_over_uring);
        }
        return pages ? Path::mmap : Path::pool;
    }
    if (mode != Mode::splice && size < policy.splice_min) {
        counts.because(Reason::splice_too_small);
        return Path::pool;
    }
    if (!pages) {
        counts.because(Reason::splice_not_over_uring);
    }
    return pages ? Path::splice : Path::pool;
}

}  // namespace zc
