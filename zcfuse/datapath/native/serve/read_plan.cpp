#include "serve/read_plan.hpp"

#include <utility>

namespace zc {

namespace {

std::pair<Path, Reason> choose(const ReadPolicy& policy, const FileLease& lease, std::size_t size,
                               Takes takes) noexcept {
    const auto mode = lease.mode().value_or(policy.mode);
    const bool pages = takes == Takes::pages;
    if (mode == Mode::pool) {
        return {Path::pool, Reason::none};
    }
    if (mode == Mode::mmap) {
        // One thread prefaults the windows of all users.
        return !pages                    ? std::pair(Path::pool, Reason::mmap_not_over_uring)
               : !lease.reads_promptly() ? std::pair(Path::pool, Reason::mmap_far)
                                         : std::pair(Path::mmap, Reason::none);
    }
    if (mode != Mode::splice && size < policy.splice_min) {
        return {Path::pool, Reason::splice_too_small};
    }
    return pages ? std::pair(Path::splice, Reason::none)
                 : std::pair(Path::pool, Reason::splice_not_over_uring);
}

}  // namespace

Path path_of_read(const ReadPolicy& policy, const FileLease& lease, std::size_t size,
                  Takes takes) noexcept {
    return choose(policy, lease, size, takes).first;
}

Path plan_read(const ReadPolicy& policy, const FileLease& lease, std::size_t size, Takes takes,
               ThreadCounts& counts) noexcept {
    if (lease.passthrough()) {
        counts.because(Reason::passthrough_read);
    }
    const auto [path, why] = choose(policy, lease, size, takes);
    if (why != Reason::none) {
        counts.because(why);
    }
    return path;
}

}  // namespace zc
