// Serving path `mmap`: finds the pieces of memory that hold a request's bytes.
//
// Files are mapped in windows (4 MiB unless told otherwise, aligned in the file), read-only and
// shared with the page cache. The serving thread makes the mapping, so that it uses the borrowed
// descriptor only during the call. The prefaulting thread populates the window and locks it within
// the budget, while the serving thread waits. Sequential reads prefetch the next window. Without
// `prefault` this thread does not exist, and the caller's vmsplice takes the faults.
//
// The caller hands the pieces to vmsplice and NEVER touches their bytes, which would raise SIGBUS
// after a truncation. vmsplice then returns -EFAULT or a short count, and the caller serves by
// another path. A pipe holds its own references to the pages, so the holder may go as soon as
// vmsplice has returned.
//
// A window that was mapped before its file was truncated and written again serves the new bytes
// (the mapping is shared), with page faults in the serving thread.
//
// Lock order: WindowTable's mutex and Prefaulter's are leaves; a thread holds one at a time.
// Thread-safe; call stop() before destroying it, so that every acquire() has returned.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "serve/lock_budget.hpp"
#include "serve/prefaulter.hpp"
#include "serve/window.hpp"
#include "serve/window_table.hpp"

namespace zc {

struct WindowOptions {
    bool prefault = true;
    std::size_t window_bytes = std::size_t{4} << 20;  // a power of two, at least a page
    // Mapped pages are the page cache's: the cap bounds page tables (2 MiB a GiB) and bookkeeping,
    // not memory. Both must have room for three windows a serving thread.
    std::size_t cap_bytes = std::size_t{4} << 30;
    std::size_t cap_windows = 8192;  // small files; vm.max_map_count is 65530
    // How long a window must be unused before it loses its lock to a new one.
    std::chrono::milliseconds lock_idle{1000};
    std::chrono::milliseconds wait{10'000};  // for the prefaulting thread, before -ETIMEDOUT
};

struct WindowFile {
    std::uint64_t id;  // of one lease, never used again for another
    int fd;            // borrowed during acquire()
};

struct Acquired {
    int error = 0;  // 0 or -errno; then there are no pieces
    std::array<iovec, 2> pieces{};
    int count = 0;
    bool locked = false;                 // every window that it touches is
    std::array<WindowRef, 2> holders{};  // keep the pieces mapped
};

struct WindowStats {
    std::uint64_t count = 0;   // windows mapped now
    std::uint64_t bytes = 0;   // mapped now
    std::uint64_t locked = 0;  // bytes locked now
    std::uint64_t hits = 0;
    std::uint64_t misses = 0;
    std::uint64_t ahead = 0;        // windows mapped before they were asked for
    std::uint64_t evictions = 0;    // windows unmapped to stay below the caps
    std::uint64_t unlocked = 0;     // windows that worked unlocked, or had to give up their lock
    std::uint64_t unpopulated = 0;  // windows that could not be prefaulted whole
};

class WindowCache {
  public:
    // Throws std::invalid_argument for an invalid window size, std::system_error if the prefaulting
    // thread cannot start.
    WindowCache(std::shared_ptr<LockBudget> budget, const WindowOptions& options);
    WindowCache(const WindowCache&) = delete;
    WindowCache& operator=(const WindowCache&) = delete;
    ~WindowCache() { stop(); }

    // The pieces of `size` bytes at `offset`; `size` is at most a window, so that two suffice, and
    // should end where the file does: in the rest of the file's last page there are zeros.
    //   -EFAULT     beyond the last page of the file, as it is now
    //   -EINVAL     size is 0 or more than a window, or the range is not one of a file
    //   -ENOMEM     all windows are in use and the cap is reached, or no memory for a mapping
    //   -EOPNOTSUPP a sparse file on tmpfs, where a mapping would allocate the holes
    //   -ENODEV     the file cannot be mapped (other errnos of mmap and fstat likewise)
    //   -ETIMEDOUT  the prefaulting thread has not come that far
    //   -ECANCELED  stopped
    Acquired acquire(const WindowFile& file, std::uint64_t offset, std::size_t size) noexcept;

    // Drops a file's windows; those in use die with their last holder. Call it once no acquire()
    // for the file can begin.
    void forget(std::uint64_t file_id) { table_->forget(file_id); }

    // Ends the prefaulting thread within a few seconds; acquire() gives -ECANCELED from now on
    // where it would have to wait. Any thread, more than once.
    void stop() noexcept;

    WindowStats stats() const noexcept;
    pid_t prefault_tid() const noexcept;  // 0 when there is no such thread (any more)
    std::size_t window_bytes() const noexcept { return options_.window_bytes; }

  private:
    struct Range {  // within one window
        WindowKey key;
        std::size_t begin;
        std::size_t end;
    };
    WindowRef take(const WindowFile& file, const Range& range, int& error);
    WindowRef find_or_map(const WindowFile& file, const Range& range, int& error);
    WindowRef map(const WindowFile& file, const WindowKey& key, std::size_t end, int& error);
    WindowRef create(const WindowKey& key, int fd, std::size_t bytes, int& error);
    void map_ahead(const WindowFile& file, const WindowKey& key);
    Acquired acquire_or_throw(const WindowFile& file, std::uint64_t offset, std::size_t size);

    const WindowOptions options_;
    const std::size_t page_bytes_;
    const std::shared_ptr<WindowTotals> totals_;
    const std::shared_ptr<WindowTable> table_;
    std::optional<Prefaulter> prefaulter_;
};

}  // namespace zc
