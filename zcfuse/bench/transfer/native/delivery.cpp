#include "delivery.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "resources.hpp"

namespace zc::transfer {

void write_all(const Job& job, std::span<const std::byte> bytes, Tally& tally) {
    while (!bytes.empty()) {
        const std::size_t count =
            granted("write", [&] { return ::write(job.sink, bytes.data(), bytes.size()); });
        ++tally.calls;
        tally.delivered += count;
        tally.copied_out += job.kind == SinkKind::null_device ? 0 : count;
        bytes = bytes.subspan(count);
    }
}

void drain(int pipe, const Job& job, std::size_t size, unsigned flags, Tally& tally) {
    while (size > 0) {
        const std::size_t count = granted("splice into the sink", [&] {
            return ::splice(pipe, nullptr, job.sink, nullptr, size, flags);
        });
        ++tally.calls;
        tally.delivered += count;
        size -= count;
    }
}

unsigned more_follows(const Job& job, std::uint64_t done) {
    return job.kind == SinkKind::socket && done < job.size ? SPLICE_F_MORE : 0;
}

std::size_t next_block(const Job& job, std::uint64_t done, std::size_t most) {
    return std::min({job.block, most, static_cast<std::size_t>(job.size - done)});
}

}  // namespace zc::transfer
