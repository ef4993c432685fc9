// RELEASE and FLUSH of files that the data path opened. Each write is in the backing file when it
// is answered, so a FLUSH, which FOPEN_NOFLUSH mostly saves, is answered at once.
#include "serve/ops/open_lease.hpp"

namespace zc::ops {

bool release(Context& context, const Request& request) {
    abi::ReleaseIn release{};
    if (!request.parse(release) || !is_own(release.fh)) {
        return false;
    }
    close_handle(context, release.fh);
    request.done();
    return true;
}

bool flush(Context&, const Request& request) {
    abi::ReleaseIn flush{};  // the handle comes first in both
    if (!request.parse(flush) || !is_own(flush.fh)) {
        return false;
    }
    request.done();
    return true;
}

}  // namespace zc::ops
