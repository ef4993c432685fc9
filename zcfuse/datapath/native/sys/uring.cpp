#include "sys/uring.hpp"

#include <liburing.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>

#include "abi/fuse_uring.hpp"
#include "sys/faults.hpp"
#include "sys/fork_guard.hpp"

namespace zc::sys {

struct Uring::Ring {
    io_uring ring{};
    bool open = false;
    std::optional<ForkGuard> guard;  // its registered file is the connection
};

namespace {

// The likely cause of a refused ring, for the user.
std::system_error refused(const char* what, int error) {
    return {-error, std::generic_category(),
            std::string(what) + (error == -EPERM || error == -ENOSYS
                                     ? " (see sysctl kernel.io_uring_disabled, or a seccomp filter)"
                                     : "")};
}

// The command area begins where a short SQE ends its fixed part (io_uring_enter(2), SQE128).
int add_command(io_uring& ring, std::uint64_t tag, std::uint32_t operation,
                const abi::uring::Command& command, std::span<const iovec> buffers) noexcept {
    io_uring_sqe* const sqe = ::io_uring_get_sqe(&ring);
    if (sqe == nullptr) {
        return -EBUSY;
    }
    constexpr std::size_t kSqeBytes = 128;
    std::memset(static_cast<void*>(sqe), 0, kSqeBytes);
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->fd = 0;  // an index into the registered files
    sqe->cmd_op = operation;
    sqe->addr = reinterpret_cast<std::uint64_t>(buffers.data());
    sqe->len = static_cast<std::uint32_t>(buffers.size());
    sqe->user_data = tag;
    std::memcpy(sqe->cmd, &command, sizeof command);
    return 0;
}

}  // namespace

Uring::Uring(unsigned commands, int device) : ring_(std::make_unique<Ring>()) {
    if (const Fault wanted = fault(Call::uring_setup); wanted < 0) {
        throw refused("io_uring_setup", wanted);
    }
    io_uring_params parameters{};
    // Disabled, so that the thread that enables it becomes its only user. That thread waits in the
    // kernel when idle, so completions can run there (DEFER_TASKRUN): 4 % of a round trip.
    parameters.flags = IORING_SETUP_SQE128 | IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
                       IORING_SETUP_SUBMIT_ALL | IORING_SETUP_DEFER_TASKRUN;
    int error = ::io_uring_queue_init_params(commands, &ring_->ring, &parameters);
    if (error < 0) {
        throw refused("io_uring_setup", error);
    }
    ring_->open = true;
    ::io_uring_ring_dontfork(&ring_->ring);
    ring_->guard.emplace(ring_->ring.ring_fd);
    error = ::io_uring_register_files(&ring_->ring, &device, 1);
    if (error < 0) {
        close();
        throw refused("io_uring_register", error);
    }
}

Uring::~Uring() {
    close();
}

int Uring::enable() noexcept {
    const int error = ::io_uring_enable_rings(&ring_->ring);
    if (error < 0) {
        return error;
    }
    // Saves a descriptor lookup per call; without it each call looks the descriptor up.
    ::io_uring_register_ring_fd(&ring_->ring);
    return 0;
}

int Uring::add_register(std::uint64_t tag, std::uint16_t queue,
                        std::span<const iovec> buffers) noexcept {
    if (const Fault wanted = fault(Call::uring_register); wanted < 0) {
        return wanted;
    }
    return add_command(ring_->ring, tag, abi::uring::kRegister, {0, 0, queue, {}}, buffers);
}

int Uring::add_withdrawal() noexcept {
    constexpr std::uint16_t kNoQueue = UINT16_MAX;
    return add_command(ring_->ring, 0, abi::uring::kRegister, {0, 0, kNoQueue, {}}, {});
}

int Uring::add_commit(std::uint64_t tag, std::uint16_t queue, std::uint64_t commit_id) noexcept {
    if (const Fault wanted = fault(Call::uring_commit); wanted < 0) {
        return wanted;
    }
    return add_command(ring_->ring, tag, abi::uring::kCommitAndFetch, {0, commit_id, queue, {}},
                       {});
}

int Uring::add_read(std::uint64_t tag, int fd, std::uint64_t& into) noexcept {
    io_uring_sqe* const sqe = ::io_uring_get_sqe(&ring_->ring);
    if (sqe == nullptr) {
        return -EBUSY;
    }
    ::io_uring_prep_read(sqe, fd, &into, sizeof into, 0);
    sqe->user_data = tag;
    return 0;
}

bool Uring::has_queued() const noexcept {
    return ::io_uring_sq_ready(&ring_->ring) > 0;
}

int Uring::submit(unsigned wait) noexcept {
    const int sent = ::io_uring_submit_and_wait(&ring_->ring, wait);
    return sent < 0 ? sent : 0;
}

bool Uring::next(Completion& into) noexcept {
    io_uring_cqe* cqe = nullptr;
    if (::io_uring_peek_cqe(&ring_->ring, &cqe) != 0 || cqe == nullptr) {
        return false;
    }
    into = {cqe->user_data, cqe->res};
    ::io_uring_cqe_seen(&ring_->ring, cqe);
    return true;
}

unsigned Uring::ready() const noexcept {
    return ::io_uring_cq_ready(&ring_->ring);
}

void Uring::close() noexcept {
    if (ring_->open) {
        ring_->open = false;
        ring_->guard.reset();
        ::io_uring_queue_exit(&ring_->ring);
    }
}

}  // namespace zc::sys
