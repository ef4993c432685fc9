// STATX, which the kernel sends for the time of birth alone. Answered here, it is never switched
// off by control's ENOSYS.
#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

abi::StatxTime time_of(const statx_timestamp& time) noexcept {
    return {time.tv_sec, time.tv_nsec, 0};
}

}  // namespace

bool statx(Context& context, const Request& request) {
    struct ::statx status {};
    Validity validity;
    const bool keeps = keeps_attributes(context, request.header.nodeid);
    if (const int error =
            context.leased_nodes().status(request.header.nodeid, context.counts, status, validity);
        error != 0) {
        return request.failed(error);
    }
    if (!keeps && S_ISREG(status.stx_mode)) {
        validity = {};
    }
    abi::StatxOut out{};
    out.attr_valid = validity.seconds;
    out.attr_valid_nsec = validity.nanoseconds;
    auto& stat = out.stat;
    stat.mask = status.stx_mask & (STATX_BASIC_STATS | STATX_BTIME);
    stat.blksize = status.stx_blksize;
    stat.nlink = status.stx_nlink;
    stat.uid = status.stx_uid;
    stat.gid = status.stx_gid;
    stat.mode = status.stx_mode;
    stat.ino = status.stx_ino;
    stat.size = status.stx_size;
    stat.blocks = status.stx_blocks;
    stat.atime = time_of(status.stx_atime);
    stat.btime = time_of(status.stx_btime);
    stat.ctime = time_of(status.stx_ctime);
    stat.mtime = time_of(status.stx_mtime);
    stat.rdev_major = status.stx_rdev_major;
    stat.rdev_minor = status.stx_rdev_minor;
    stat.dev_major = status.stx_dev_major;
    stat.dev_minor = status.stx_dev_minor;
    request.answer_with(out);
    return true;
}

}  // namespace zc::ops
