// IORING_OP_SPLICE twice, linked: one system call for both halves. The kernel hands each splice to
// a worker thread, since it may block.
#include "delivery.hpp"
#include "ring.hpp"

namespace zc::transfer {

namespace {

class UringSplice final : public Method {
  public:
    explicit UringSplice(const Job& job)
        : job_(job), file_(open_file(job.path)), pipe_(job.block), ring_(kEntries) {}

    void run(Tally& tally) override {
        while (tally.delivered < job_.size) {
            const std::size_t wanted = next_block(job_, tally.delivered, pipe_.bytes());
            const Moved moved = move(tally.delivered, wanted, tally);
            if (moved.in == 0) {
                return;
            }
            tally.delivered += moved.out;
            // A short first half breaks the link, and a sink may accept less than offered.
            for (std::size_t left = moved.in - moved.out; left > 0;) {
                const std::size_t count = empty(left, tally);
                left -= count;
                tally.delivered += count;
            }
        }
    }

  private:
    static constexpr unsigned kEntries = 4;
    static constexpr unsigned long long kIn = 1;
    static constexpr unsigned long long kOut = 2;
    struct Moved {
        std::size_t in = 0;
        std::size_t out = 0;
    };

    void queue_out(std::size_t size, unsigned flags) {
        io_uring_sqe* const sqe = ring_.next(kOut);
        ::io_uring_prep_splice(sqe, pipe_.read_end(), -1, job_.sink, -1,
                               static_cast<unsigned>(size), flags);
        sqe->user_data = kOut;  // preparing clears it
    }

    Moved move(std::uint64_t offset, std::size_t wanted, Tally& tally) {
        io_uring_sqe* const sqe = ring_.next(kIn);
        ::io_uring_prep_splice(sqe, file_.get(), static_cast<std::int64_t>(offset),
                               pipe_.write_end(), -1, static_cast<unsigned>(wanted), 0);
        sqe->user_data = kIn;
        sqe->flags |= IOSQE_IO_LINK;
        queue_out(wanted, more_follows(job_, offset + wanted));
        ring_.submit_and_wait(2);
        ++tally.calls;
        Moved moved;
        for (int i = 0; i < 2; ++i) {
            const io_uring_cqe cqe = ring_.take();
            if (cqe.res < 0 && !(cqe.user_data == kOut && cqe.res == -ECANCELED)) {
                refuse(-cqe.res, "IORING_OP_SPLICE");
            }
            const auto count = static_cast<std::size_t>(cqe.res < 0 ? 0 : cqe.res);
            (cqe.user_data == kIn ? moved.in : moved.out) = count;
        }
        return moved;
    }

    std::size_t empty(std::size_t size, Tally& tally) {
        queue_out(size, 0);
        ring_.submit_and_wait(1);
        ++tally.calls;
        const io_uring_cqe cqe = ring_.take();
        if (cqe.res <= 0) {
            refuse(cqe.res < 0 ? -cqe.res : EPIPE, "IORING_OP_SPLICE");
        }
        return static_cast<std::size_t>(cqe.res);
    }

    Job job_;
    sys::UniqueFd file_;
    Pipe pipe_;
    Ring ring_;
};

}  // namespace

std::unique_ptr<Method> uring_splice(const Job& job) {
    return std::make_unique<UringSplice>(job);
}

}  // namespace zc::transfer
