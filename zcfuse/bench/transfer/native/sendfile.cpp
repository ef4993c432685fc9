// sendfile(2): page references from the page cache into the sink, through a kernel pipe.
#include <sys/sendfile.h>

#include "delivery.hpp"
#include "resources.hpp"

namespace zc::transfer {

namespace {

class Sendfile final : public Method {
  public:
    explicit Sendfile(const Job& job) : job_(job), file_(open_file(job.path)) {}

    void run(Tally& tally) override {
        off_t offset = 0;
        while (tally.delivered < job_.size) {
            const std::size_t wanted = next_block(job_, tally.delivered);
            const std::size_t count = granted(
                "sendfile", [&] { return ::sendfile(job_.sink, file_.get(), &offset, wanted); });
            if (count == 0) {
                return;
            }
            ++tally.calls;
            tally.delivered += count;
        }
    }

  private:
    Job job_;
    sys::UniqueFd file_;
};

}  // namespace

std::unique_ptr<Method> sendfile(const Job& job) {
    return std::make_unique<Sendfile>(job);
}

}  // namespace zc::transfer
