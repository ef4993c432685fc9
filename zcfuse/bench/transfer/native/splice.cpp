// splice(2) twice: the file's page references into a pipe, and out of it into the sink.
#include <fcntl.h>

#include "delivery.hpp"
#include "resources.hpp"

namespace zc::transfer {

namespace {

class Splice final : public Method {
  public:
    Splice(const Job& job, unsigned flags)
        : job_(job), flags_(flags), file_(open_file(job.path)), pipe_(job.block) {}

    void run(Tally& tally) override {
        loff_t offset = 0;
        while (tally.delivered < job_.size) {
            const std::size_t wanted = next_block(job_, tally.delivered, pipe_.bytes());
            const std::size_t count = granted("splice from the file", [&] {
                return ::splice(file_.get(), &offset, pipe_.write_end(), nullptr, wanted, flags_);
            });
            if (count == 0) {
                return;
            }
            ++tally.calls;
            const unsigned more = more_follows(job_, tally.delivered + count);
            drain(pipe_.read_end(), job_, count, flags_ | more, tally);
        }
    }

  private:
    Job job_;
    unsigned flags_;
    sys::UniqueFd file_;
    Pipe pipe_;
};

}  // namespace

std::unique_ptr<Method> splice(const Job& job) {
    return std::make_unique<Splice>(job, 0);
}

std::unique_ptr<Method> splice_move(const Job& job) {
    return std::make_unique<Splice>(job, SPLICE_F_MOVE);
}

}  // namespace zc::transfer
