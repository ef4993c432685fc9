// READ_FIXED into registered buffers and SEND_ZC out of them; registering pins the pages once. A
// buffer cycles: it is filled while the previous one is sent, then sent, then waits for the
// kernel's notification that it is free. A sink that refuses SEND_ZC (for TCP and UDP only) gets
// WRITE_FIXED, and a note.
#include <sys/socket.h>

#include <array>
#include <cstring>
#include <deque>

#include "delivery.hpp"
#include "ring.hpp"

namespace zc::transfer {

namespace {

// Linux 6.2; older liburing headers lack them.
constexpr unsigned kReportUsage = 1U << 3;      // IORING_SEND_ZC_REPORT_USAGE
constexpr unsigned kCopiedAfterAll = 1U << 31;  // IORING_NOTIF_USAGE_ZC_COPIED
constexpr std::size_t kBuffers = 4;

class UringFixed final : public Method {
  public:
    explicit UringFixed(const Job& job)
        : job_(job),
          file_(open_file(job.path)),
          pages_(Pages::anonymous(job.block * kBuffers)),
          ring_(2 * kBuffers) {
        std::array<iovec, kBuffers> buffers{};
        for (std::size_t i = 0; i < kBuffers; ++i) {
            buffers[i] = {pages_.data() + i * job.block, job.block};
        }
        const int error = ::io_uring_register_buffers(ring_.get(), buffers.data(), kBuffers);
        if (error < 0) {
            refuse(-error, "io_uring_register of the buffers");
        }
    }

    // Unregister now: closing the ring alone releases them later, and a user's limit
    // (RLIMIT_MEMLOCK) holds few.
    ~UringFixed() override { ::io_uring_unregister_buffers(ring_.get()); }

    void run(Tally& tally) override {
        queue_read(0);
        for (std::size_t at = 0; tally.delivered < job_.size; at = (at + 1) % kBuffers) {
            await([&] { return !slots_[at].reading; }, tally);
            if (slots_[at].length == 0) {
                break;
            }
            const std::size_t following = (at + 1) % kBuffers;
            await([&] { return slots_[following].unconfirmed.empty(); }, tally);
            queue_send(at);
            if (read_ < job_.size) {
                queue_read(following);
            }
            await([&] { return slots_[at].sent == slots_[at].length; }, tally);
        }
        for (auto& slot : slots_) {
            await([&] { return slot.unconfirmed.empty(); }, tally);
        }
    }

  private:
    enum class Kind : unsigned long long { read, send };
    struct Slot {
        std::size_t length = 0;  // bytes in it
        std::size_t sent = 0;
        bool reading = false;
        std::deque<std::size_t> unconfirmed;  // bytes of each send without a notification yet
    };

    static unsigned long long tag(Kind kind, std::size_t at) {
        return static_cast<unsigned long long>(kind) << 32 | at;
    }

    std::byte* buffer(std::size_t at) const { return pages_.data() + at * job_.block; }

    void queue_read(std::size_t at) {
        const std::size_t wanted = next_block(job_, read_);
        io_uring_sqe* const sqe = ring_.next(0);
        ::io_uring_prep_read_fixed(sqe, file_.get(), buffer(at), static_cast<unsigned>(wanted),
                                   read_, static_cast<int>(at));
        sqe->user_data = tag(Kind::read, at);
        slots_[at].reading = true;
        slots_[at].length = slots_[at].sent = 0;
    }

    void queue_send(std::size_t at) {
        const Slot& slot = slots_[at];
        std::byte* const from = buffer(at) + slot.sent;
        const std::size_t size = slot.length - slot.sent;
        io_uring_sqe* const sqe = ring_.next(0);
        if (writes_) {
            constexpr auto kWhereItIs = static_cast<unsigned long long>(-1);
            ::io_uring_prep_write_fixed(sqe, job_.sink, from, static_cast<unsigned>(size),
                                        kWhereItIs, static_cast<int>(at));
        } else {
            ::io_uring_prep_send_zc_fixed(sqe, job_.sink, from, size, MSG_WAITALL, report_,
                                          static_cast<unsigned>(at));
        }
        sqe->user_data = tag(Kind::send, at);
    }

    template <typename Condition>
    void await(Condition condition, Tally& tally) {
        while (!condition()) {
            ring_.submit_and_wait(1);
            ++tally.calls;
            while (::io_uring_cq_ready(ring_.get()) > 0) {
                take(ring_.take(), tally);
            }
        }
    }

    void take(const io_uring_cqe& cqe, Tally& tally) {
        const std::size_t at = cqe.user_data & 0xffffffff;
        if (static_cast<Kind>(cqe.user_data >> 32) == Kind::read) {
            take_read(at, cqe.res, tally);
        } else if ((cqe.flags & IORING_CQE_F_NOTIF) != 0) {
            const bool copied = (static_cast<unsigned>(cqe.res) & kCopiedAfterAll) != 0;
            tally.copied_late += copied ? slots_[at].unconfirmed.front() : 0;
            slots_[at].unconfirmed.pop_front();
        } else {
            take_send(at, cqe, tally);
        }
    }

    void take_read(std::size_t at, int result, Tally& tally) {
        if (result < 0) {
            refuse(-result, "READ_FIXED");
        }
        slots_[at].reading = false;
        slots_[at].length = static_cast<std::size_t>(result);
        read_ += slots_[at].length;
        tally.copied_in += slots_[at].length;
    }

    void take_send(std::size_t at, const io_uring_cqe& cqe, Tally& tally) {
        const auto count = static_cast<std::size_t>(cqe.res < 0 ? 0 : cqe.res);
        if ((cqe.flags & IORING_CQE_F_MORE) != 0) {
            slots_[at].unconfirmed.push_back(count);
        }
        if (cqe.res < 0) {
            fall_back(-cqe.res, tally);
        } else if (count == 0) {
            refuse(EPIPE, writes_ ? "WRITE_FIXED" : "SEND_ZC");
        }
        slots_[at].sent += count;
        tally.delivered += count;
        tally.copied_out += writes_ && job_.kind != SinkKind::null_device ? count : 0;
        if (slots_[at].sent < slots_[at].length) {
            queue_send(at);
        }
    }

    void fall_back(int error, Tally& tally) {
        const bool at_start = tally.delivered == 0 && !writes_;
        if (at_start && error == EINVAL && report_ != 0) {
            report_ = 0;
            tally.note = "this kernel does not tell whether SEND_ZC copied";
        } else if (at_start && (error == EOPNOTSUPP || error == ENOTSOCK || error == EINVAL)) {
            writes_ = true;
            tally.note =
                std::string("SEND_ZC: ") + ::strerrorname_np(error) + ", WRITE_FIXED instead";
        } else {
            refuse(error, writes_ ? "WRITE_FIXED" : "SEND_ZC");
        }
    }

    Job job_;
    sys::UniqueFd file_;
    Pages pages_;
    Ring ring_;  // declared after the pages, so destroyed before them
    std::array<Slot, kBuffers> slots_;
    std::uint64_t read_ = 0;
    unsigned report_ = kReportUsage;
    bool writes_ = false;
};

}  // namespace

std::unique_ptr<Method> uring_fixed(const Job& job) {
    return std::make_unique<UringFixed>(job);
}

}  // namespace zc::transfer
