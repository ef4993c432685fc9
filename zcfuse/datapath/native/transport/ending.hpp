// How the connection ends. The first cause is kept and makes an eventfd readable, so that control
// wakes. A failure also ends the connection in the kernel, so that no client is left waiting for a
// thread that is gone: by the abort file of the control filesystem, by a forced lazy unmount, and
// where neither is to be had by the last resort that the data path gives: letting go of the
// descriptors that keep the connection alive.
// Safe from any thread.
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

    // Opens the abort file now: once the mount is gone, another may get its number and its file.
    void set_abort(const std::string& abort_file, std::string mountpoint);
    // Until there is a last resort a failure is only recorded: whoever starts the threads handles
    // it.
    void set_last_resort(std::function<void()> sever);
    // The connection ended as it should ("unmounted") or from outside ("aborted").
    void ended(const char* how) noexcept;
    // Something broke: `what` says what, with the ids; `error` is 0 or a -errno to add to it. Ends
    // the connection in the kernel too.
    void failed(const char* what, int error) noexcept;
    // Orderly end on our side; a failure after this is not one.
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
