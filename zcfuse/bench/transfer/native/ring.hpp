// One io_uring of one thread.
#pragma once

#include <liburing.h>

#include <cerrno>

#include "resources.hpp"

namespace zc::transfer {

class Ring {
  public:
    explicit Ring(unsigned entries) {
        if (const int error = ::io_uring_queue_init(entries, &ring_, 0); error < 0) {
            refuse(-error, "io_uring_setup");
        }
    }
    Ring(const Ring&) = delete;
    Ring& operator=(const Ring&) = delete;
    ~Ring() { ::io_uring_queue_exit(&ring_); }

    io_uring* get() noexcept { return &ring_; }

    // At most `entries` between two submissions, so one is always free.
    io_uring_sqe* next(unsigned long long tag) {
        io_uring_sqe* const sqe = ::io_uring_get_sqe(&ring_);
        if (sqe == nullptr) {
            refuse(EBUSY, "io_uring_get_sqe");
        }
        sqe->user_data = tag;
        return sqe;
    }

    void submit_and_wait(unsigned completions) {
        int result = ::io_uring_submit_and_wait(&ring_, completions);
        while (result == -EINTR) {
            result = ::io_uring_submit_and_wait(&ring_, completions);
        }
        if (result < 0) {
            refuse(-result, "io_uring_enter");
        }
    }

    // The oldest completion; waits if necessary.
    io_uring_cqe take() {
        io_uring_cqe* cqe = nullptr;
        int error = ::io_uring_wait_cqe(&ring_, &cqe);
        while (error == -EINTR) {
            error = ::io_uring_wait_cqe(&ring_, &cqe);
        }
        if (error < 0) {
            refuse(-error, "io_uring_enter");
        }
        io_uring_cqe copy{};
        copy.user_data = cqe->user_data;
        copy.res = cqe->res;
        copy.flags = cqe->flags;
        ::io_uring_cqe_seen(&ring_, cqe);
        return copy;
    }

  private:
    io_uring ring_{};
};

}  // namespace zc::transfer
