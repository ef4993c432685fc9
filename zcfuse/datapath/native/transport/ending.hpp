// The end of the connection. It keeps the first cause and makes an eventfd readable, which wakes
// control. A failure also ends the connection in the kernel, so that no client waits for an ended
// thread: by the abort file of the control filesystem, by a forced lazy unmount, or by the data
// path's last resort, releasing the descriptors that keep the connection alive. Safe from any
// thread.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>

#include "sys/unique_fd.hpp"

namespace zc {

class Ending {
  public:
    Ending();

    // Opens the abort file now: after an unmount, another mount may get its number and file.
    void set_abort(const std::string& abort_file, std::string mountpoint);
    // Without a last resort a failure is only recorded, and the starter of the threads handles it.
    void set_last_resort(std::function<void()> sever);
    // The connection ended cleanly ("unmounted") or from outside ("aborted").
    void ended(const char* how) noexcept;
    // Records a failure: `what` describes it, with the ids; `error` is 0 or a -errno. Also ends the
    // connection in the kernel.
    void failed(const char* what, int error) noexcept;
    // Clean end on our side; later failures do not count.
    void expect() noexcept { expected_.store(true, std::memory_order_release); }

    bool is_over() const noexcept { return over_.load(std::memory_order_acquire); }
    bool expected() const noexcept { return expected_.load(std::memory_order_acquire); }
    int event() const noexcept { return event_.get(); }
    std::string reason() const;

  private:
    bool record(const char* how, int error) noexcept;
    void abort_connection() noexcept;

    mutable std::mutex lock_;  // innermost
    sys::UniqueFd event_;
    std::atomic<bool> over_{false};
    std::atomic<bool> expected_{false};
    std::string reason_;
    sys::UniqueFd abort_file_;
    std::string mountpoint_;
    std::function<void()> last_resort_;
};

}  // namespace zc
