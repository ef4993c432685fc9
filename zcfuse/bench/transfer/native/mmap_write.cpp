// write(2) from a mapping of the file: one copy, and a page fault per page or run of pages.
#include <sys/mman.h>

#include "delivery.hpp"
#include "resources.hpp"

namespace zc::transfer {

namespace {

class MmapWrite final : public Method {
  public:
    explicit MmapWrite(const Job& job) : job_(job), file_(open_file(job.path)) {}

    void run(Tally& tally) override {
        auto mapping = Pages::of_file(file_.get(), job_.size);
        // /dev/null reads no byte of a mapping, so the file would never be read.
        const bool populate = job_.kind == SinkKind::null_device;
        if (populate) {
            tally.note = "write to /dev/null touches no page: each is populated instead";
        }
        for (std::uint64_t done = 0; done < job_.size;) {
            const auto part = mapping.part(done, next_block(job_, done));
            if (populate) {
                mapping.populate(part, MADV_POPULATE_READ);
                ++tally.calls;
            }
            write_all(job_, part, tally);
            done += part.size();
        }
    }

  private:
    Job job_;
    sys::UniqueFd file_;
};

}  // namespace

std::unique_ptr<Method> mmap_write(const Job& job) {
    return std::make_unique<MmapWrite>(job);
}

}  // namespace zc::transfer
