// read(2) into a buffer and write(2) out of it; and the same with O_DIRECT, where the device writes
// into the buffer (DMA) and the CPU copies on the way out only.
#include <fcntl.h>
#include <unistd.h>

#include "delivery.hpp"
#include "resources.hpp"

namespace zc::transfer {

namespace {

class ReadWrite final : public Method {
  public:
    ReadWrite(const Job& job, bool direct)
        : job_(job),
          direct_(direct),
          file_(open_file(job.path, direct ? O_DIRECT : 0)),
          buffer_(Pages::anonymous(job.block)) {
        if (direct) {
            buffer_.lock();
        }
    }

    void run(Tally& tally) override {
        std::uint64_t done = 0;
        while (done < job_.size) {
            const std::size_t count = read(done, tally);
            if (count == 0) {
                return;
            }
            write_all(job_, buffer_.part(0, count), tally);
            done += count;
        }
    }

  private:
    std::size_t read(std::uint64_t offset, Tally& tally) {
        // O_DIRECT needs whole blocks, even if the job ends inside one.
        const std::size_t wanted = next_block(job_, offset);
        const std::size_t count = granted("read", [&] {
            return ::pread(file_.get(), buffer_.data(), direct_ ? job_.block : wanted,
                           static_cast<off_t>(offset));
        });
        ++tally.calls;
        tally.copied_in += direct_ ? 0 : count;
        return std::min(count, wanted);
    }

    Job job_;
    bool direct_;
    sys::UniqueFd file_;
    Pages buffer_;
};

}  // namespace

std::unique_ptr<Method> read_write(const Job& job) {
    return std::make_unique<ReadWrite>(job, false);
}

std::unique_ptr<Method> direct_read(const Job& job) {
    return std::make_unique<ReadWrite>(job, true);
}

}  // namespace zc::transfer
