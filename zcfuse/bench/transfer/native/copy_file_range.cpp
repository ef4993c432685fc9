// copy_file_range(2): from page cache to page cache in the kernel, or a shared extent if the
// filesystem supports that; then `copied_inside` is too high.
#include <unistd.h>

#include "delivery.hpp"
#include "resources.hpp"

namespace zc::transfer {

namespace {

class CopyFileRange final : public Method {
  public:
    explicit CopyFileRange(const Job& job) : job_(job), file_(open_file(job.path)) {}

    void run(Tally& tally) override {
        loff_t from = 0;
        loff_t to = 0;
        while (tally.delivered < job_.size) {
            const std::size_t wanted = next_block(job_, tally.delivered);
            const std::size_t count = granted("copy_file_range", [&] {
                return ::copy_file_range(file_.get(), &from, job_.sink, &to, wanted, 0);
            });
            if (count == 0) {
                return;
            }
            ++tally.calls;
            tally.delivered += count;
            tally.copied_inside += count;
        }
    }

  private:
    Job job_;
    sys::UniqueFd file_;
};

}  // namespace

std::unique_ptr<Method> copy_file_range(const Job& job) {
    return std::make_unique<CopyFileRange>(job);
}

}  // namespace zc::transfer
