// vmsplice(2) of a mapping into a pipe, and splice(2) from there: references again, found through
// the page tables.
#include <fcntl.h>
#include <sys/uio.h>

#include "delivery.hpp"
#include "resources.hpp"

namespace zc::transfer {

namespace {

class Vmsplice final : public Method {
  public:
    explicit Vmsplice(const Job& job) : job_(job), file_(open_file(job.path)), pipe_(job.block) {}

    void run(Tally& tally) override {
        const auto mapping = Pages::of_file(file_.get(), job_.size);
        while (tally.delivered < job_.size) {
            const std::size_t wanted = next_block(job_, tally.delivered, pipe_.bytes());
            const iovec piece{mapping.data() + tally.delivered, wanted};
            const std::size_t count =
                granted("vmsplice", [&] { return ::vmsplice(pipe_.write_end(), &piece, 1, 0); });
            ++tally.calls;
            const unsigned more = more_follows(job_, tally.delivered + count);
            drain(pipe_.read_end(), job_, count, more, tally);
        }
    }

  private:
    Job job_;
    sys::UniqueFd file_;
    Pipe pipe_;
};

}  // namespace

std::unique_ptr<Method> vmsplice(const Job& job) {
    return std::make_unique<Vmsplice>(job);
}

}  // namespace zc::transfer
