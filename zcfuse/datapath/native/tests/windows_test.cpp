// Serving path `mmap`: windows over backing files, without a mount and without a pipe's reader.
#include "serve/windows.hpp"

#include <algorithm>
#include <atomic>
#include <random>
#include <span>

#include "check.hpp"
#include "files.hpp"

namespace zc::test {

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kWindow = 16 * kPage;  // small, to get many windows from little data
constexpr std::size_t kNoBudget = 0;
constexpr std::size_t kAmple = std::size_t{4} << 20;

struct Cache {
    explicit Cache(std::size_t budget_bytes = kAmple, WindowOptions options = {})
        : budget(std::make_shared<LockBudget>(budget_bytes)), windows(budget, small(options)) {}

    static WindowOptions small(WindowOptions options) {
        if (options.window_bytes == WindowOptions{}.window_bytes) {
            options.window_bytes = kWindow;
        }
        return options;
    }

    Acquired acquire(const File& file, std::uint64_t offset, std::size_t size,
                     std::uint64_t id = 1) {
        return windows.acquire({id, file.fd()}, offset, size);
    }

    std::shared_ptr<LockBudget> budget;
    WindowCache windows;
};

ssize_t send(const Pipe& pipe, const Acquired& acquired) {
    return sys::vmsplice(
        pipe.write_end(),
        std::span(acquired.pieces).first(static_cast<std::size_t>(acquired.count)));
}

}  // namespace

TEST("pieces hold the bytes of the file at random offsets and sizes") {
    const std::size_t size = 10 * kWindow + 123;
    const File file(size);
    Cache cache;
    const Pipe pipe;
    std::mt19937_64 random(1);
    for (int i = 0; i < 200; ++i) {
        const std::uint64_t offset = random() % size;
        const std::size_t count = std::min<std::size_t>(1 + random() % kWindow, size - offset);
        const Acquired acquired = cache.acquire(file, offset, count);
        CHECK_EQ(acquired.error, 0);
        CHECK_EQ(send(pipe, acquired), static_cast<ssize_t>(count));
        CHECK(pipe.drain(count) == patterned(offset, count));
    }
}

TEST("a request across a border is two pieces of two windows") {
    const File file(2 * kWindow);
    Cache cache;
    const Acquired acquired = cache.acquire(file, kWindow - 10, 30);
    CHECK_EQ(acquired.count, 2);
    CHECK_EQ(acquired.pieces[0].iov_len, 10U);
    CHECK_EQ(acquired.pieces[1].iov_len, 20U);
    CHECK_EQ(cache.windows.stats().misses, 2U);
}

TEST("a range that is none is EINVAL") {
    const File file(kWindow);
    Cache cache;
    CHECK_EQ(cache.acquire(file, 0, 0).error, -EINVAL);
    CHECK_EQ(cache.acquire(file, 0, kWindow + 1).error, -EINVAL);
    CHECK_EQ(cache.acquire(file, ~std::uint64_t{0} - 10, kPage).error, -EINVAL);
}

TEST("what lies beyond the last page is EFAULT") {
    const File file(kPage + 1);
    Cache cache;
    CHECK_EQ(cache.acquire(file, kPage, 1).error, 0);
    CHECK_EQ(cache.acquire(file, 2 * kPage, 1).error, -EFAULT);
    CHECK_EQ(cache.acquire(file, kWindow, 1).error, -EFAULT);
    CHECK_EQ(cache.acquire(File(), 0, 1, 2).error, -EFAULT);
}

TEST("a descriptor that cannot be mapped gives its errno") {
    Cache cache;
    CHECK_EQ(cache.windows.acquire({1, -1}, 0, kPage).error, -EBADF);
    const File file(kPage);
    const std::string path = "/proc/self/fd/" + std::to_string(file.fd());
    const sys::UniqueFd again(checked(::open(path.c_str(), O_WRONLY | O_CLOEXEC), "open"));
    CHECK_EQ(cache.windows.acquire({1, again.get()}, 0, kPage).error, -EACCES);
}

TEST("a file that grew gets a fresh window") {
    const File file(kPage);
    Cache cache;
    CHECK_EQ(cache.acquire(file, 0, kPage).error, 0);
    CHECK_EQ(cache.acquire(file, kPage, kPage).error, -EFAULT);
    file.write(kPage, kPage);
    const Acquired grown = cache.acquire(file, kPage, kPage);
    const Pipe pipe;
    CHECK_EQ(send(pipe, grown), static_cast<ssize_t>(kPage));
    CHECK(pipe.drain(kPage) == patterned(kPage, kPage));
    CHECK_EQ(cache.windows.stats().count, 1U);
}

TEST("a file truncated while it is mapped is a short or refused vmsplice, not a signal") {
    const File file(kWindow);
    Cache cache;
    const Acquired acquired = cache.acquire(file, 0, kWindow);
    file.resize(kPage);
    const Pipe pipe;
    CHECK_EQ(send(pipe, acquired), static_cast<ssize_t>(kPage));
    file.resize(0);
    CHECK_EQ(send(pipe, acquired), -EFAULT);
    CHECK_EQ(cache.acquire(file, kWindow, 1).error, -EFAULT);
}

TEST("a file that is truncated and grows all the time never brings the process down") {
    const File file(4 * kWindow);
    Cache cache(kAmple, {.cap_bytes = 3 * kWindow});
    std::atomic<bool> done{false};
    std::thread outsider([&] {
        for (int i = 0; i < 300; ++i) {
            checked(::ftruncate(file.fd(), (i % 5) * static_cast<off_t>(kWindow / 2)), "ftruncate");
            checked(::ftruncate(file.fd(), 4 * static_cast<off_t>(kWindow)), "ftruncate");
        }
        done = true;
    });
    std::mt19937_64 random(2);
    const Pipe pipe;
    std::int64_t odd = 0;
    while (!done) {
        const std::size_t size = 1 + random() % kWindow;
        const Acquired acquired = cache.acquire(file, random() % (4 * kWindow), size);
        const ssize_t sent = acquired.error == 0 ? send(pipe, acquired) : 0;
        odd += sent < 0 && sent != -EFAULT ? 1 : 0;
        pipe.drain(sent > 0 ? static_cast<std::size_t>(sent) : 0);
    }
    outsider.join();
    CHECK_EQ(odd, 0);
}

TEST("the window used longest ago is evicted to stay below the cap") {
    const File file(4 * kWindow);
    Cache cache(kAmple, {.cap_bytes = 2 * kWindow});
    cache.acquire(file, 0, kPage);
    cache.acquire(file, kWindow, kPage);
    cache.acquire(file, 0, kPage);
    cache.acquire(file, 2 * kWindow, kPage);  // in place of the second
    CHECK_EQ(cache.windows.stats().bytes, 2 * kWindow);
    CHECK_EQ(cache.windows.stats().evictions, 1U);
    const auto hits = cache.windows.stats().hits;
    cache.acquire(file, 0, kPage);
    CHECK_EQ(cache.windows.stats().hits, hits + 1);
    cache.acquire(file, kWindow, kPage);
    CHECK_EQ(cache.windows.stats().hits, hits + 1);
}

TEST("windows in use are never evicted, and ENOMEM when all are") {
    const File file(4 * kWindow);
    Cache cache(kAmple, {.cap_bytes = 2 * kWindow});
    const Acquired held = cache.acquire(file, kWindow - kPage, 2 * kPage);
    CHECK_EQ(cache.acquire(file, 2 * kWindow, kPage).error, -ENOMEM);
    const Pipe pipe;
    CHECK_EQ(send(pipe, held), static_cast<ssize_t>(2 * kPage));
}

TEST("without a budget windows work unlocked and are counted") {
    const File file(3 * kWindow);
    Cache cache(kNoBudget);
    const Acquired acquired = cache.acquire(file, 0, kPage);
    CHECK_EQ(acquired.error, 0);
    CHECK(!acquired.locked);
    CHECK_EQ(cache.windows.stats().unlocked, 1U);
    CHECK_EQ(cache.windows.stats().locked, 0U);
}

TEST("a new window gets the lock of the one used longest ago, which stays mapped") {
    const File file(4 * kWindow);
    Cache cache(2 * kWindow, {.lock_idle = std::chrono::milliseconds(0)});
    CHECK(cache.acquire(file, 0, kPage).locked);
    CHECK(cache.acquire(file, kWindow, kPage).locked);
    CHECK(cache.acquire(file, 2 * kWindow, kPage).locked);
    CHECK_EQ(cache.budget->used(), 2 * kWindow);
    CHECK_EQ(cache.windows.stats().locked, 2 * kWindow);
    CHECK_EQ(cache.windows.stats().count, 3U);
    CHECK_EQ(cache.windows.stats().unlocked, 1U);
    CHECK(!cache.acquire(file, 0, kPage).locked);
    CHECK(cache.acquire(file, kWindow, kPage).locked);
}

TEST("a lock is not taken from a window that was used just now") {
    const File file(4 * kWindow);
    Cache cache(kWindow, {.lock_idle = std::chrono::minutes(1)});
    CHECK(cache.acquire(file, 0, kPage).locked);
    CHECK(!cache.acquire(file, kWindow, kPage).locked);
    CHECK(cache.acquire(file, 0, kPage).locked);
}

TEST("a lock is not taken from a window in use") {
    const File file(4 * kWindow);
    Cache cache(kWindow, {.lock_idle = std::chrono::milliseconds(0)});
    const Acquired held = cache.acquire(file, 0, kPage);
    CHECK(!cache.acquire(file, kWindow, kPage).locked);
    CHECK_EQ(cache.windows.stats().locked, kWindow);
}

TEST("no lock is given up where that would not make enough room") {
    const File small(kPage);
    const File large(kWindow);
    Cache cache(kWindow, {.lock_idle = std::chrono::milliseconds(0)});
    CHECK(cache.budget->try_take(kWindow - kPage));  // by the pool
    CHECK(cache.acquire(small, 0, kPage, 1).locked);
    CHECK(!cache.acquire(large, 0, kPage, 2).locked);
    CHECK(cache.acquire(small, 0, kPage, 1).locked);
}

TEST("all that was taken from the budget is given back") {
    const auto budget = std::make_shared<LockBudget>(kAmple);
    {
        const File file(8 * kWindow);
        WindowCache windows(budget, {.window_bytes = kWindow, .cap_bytes = 4 * kWindow});
        for (std::uint64_t i = 0; i < 8; ++i) {
            windows.acquire({1, file.fd()}, i * kWindow, kPage);
        }
        CHECK_EQ(budget->used(), 4 * kWindow);
    }
    CHECK_EQ(budget->used(), 0U);
}

TEST("a forgotten file's windows go, those in use with their last holder") {
    const File file(2 * kWindow);
    const File other(kWindow);
    Cache cache;
    cache.acquire(other, 0, kPage, 2);
    cache.acquire(file, kWindow, kPage, 1);
    Acquired held = cache.acquire(file, 0, kPage, 1);
    cache.windows.forget(1);
    CHECK_EQ(cache.windows.stats().count, 2U);
    const Pipe pipe;
    CHECK_EQ(send(pipe, held), static_cast<ssize_t>(kPage));
    held = {};
    CHECK_EQ(cache.windows.stats().count, 1U);
    CHECK_EQ(cache.windows.stats().bytes, kWindow);
}

TEST("reading on prefetches the next window") {
    const File file(3 * kWindow);
    Cache cache;
    for (std::size_t at = 0; at < kWindow; at += kPage) {
        cache.acquire(file, at, kPage);
    }
    CHECK_EQ(cache.windows.stats().ahead, 1U);
    CHECK_EQ(cache.acquire(file, kWindow, kPage).error, 0);
    CHECK_EQ(cache.windows.stats().misses, 1U);
}

TEST("a few reads of a file's beginning prefetch nothing") {
    const File file(3 * kWindow);
    Cache cache;
    cache.acquire(file, 0, kPage);
    cache.acquire(file, 0, kPage);
    CHECK_EQ(cache.windows.stats().ahead, 0U);
}

TEST("a sparse file of 1 TiB stays within the cap, also beyond 4 GiB") {
    constexpr std::uint64_t kTebibyte = std::uint64_t{1} << 40;
    const File file(0, kTebibyte);
    file.write(kTebibyte - kPage, kPage);
    Cache cache(kAmple, {.cap_bytes = 8 * kWindow});
    std::mt19937_64 random(3);
    for (int i = 0; i < 200; ++i) {
        CHECK_EQ(cache.acquire(file, random() % (kTebibyte - kWindow), kPage).error, 0);
        CHECK(cache.windows.stats().bytes <= 8 * kWindow);
    }
    const Pipe pipe;
    CHECK_EQ(send(pipe, cache.acquire(file, kTebibyte - kPage, kPage)),
             static_cast<ssize_t>(kPage));
    CHECK(pipe.drain(kPage) == patterned(kTebibyte - kPage, kPage));
}

TEST("a sparse file whose holes a mapping would allocate is refused") {
    const sys::UniqueFd memory(checked(::memfd_create("zcfuse", MFD_CLOEXEC), "memfd_create"));
    checked(::ftruncate(memory.get(), 2 * kPage), "ftruncate");
    Cache cache;
    CHECK_EQ(cache.windows.acquire({1, memory.get()}, 0, kPage).error, -EOPNOTSUPP);
    const std::vector<std::uint8_t> bytes(2 * kPage);
    CHECK_EQ(::pwrite(memory.get(), bytes.data(), bytes.size(), 0), 2 * ssize_t{kPage});
    CHECK_EQ(cache.windows.acquire({1, memory.get()}, 0, kPage).error, 0);
}

TEST("thousands of files stay within the cap of windows") {
    const File file(kPage);
    Cache cache(kAmple, {.cap_windows = 100});
    for (std::uint64_t id = 1; id <= 3000; ++id) {
        CHECK_EQ(cache.acquire(file, 0, kPage, id).error, 0);
    }
    CHECK_EQ(cache.windows.stats().count, 100U);
}

TEST("in steady state the serving thread takes no page fault") {
    const File file(8 * kWindow);
    Cache cache;
    const Pipe pipe;
    const sys::UniqueFd sink(checked(::open("/dev/null", O_WRONLY | O_CLOEXEC), "/dev/null"));
    const auto pass = [&] {
        const std::int64_t before = faults_of_this_thread();
        for (std::uint64_t at = 0; at < 8 * kWindow; at += kWindow) {
            CHECK_EQ(send(pipe, cache.acquire(file, at, kWindow)), static_cast<ssize_t>(kWindow));
            CHECK(sys::splice_out(pipe.read_end(), sink.get(), kWindow) > 0);
        }
        return faults_of_this_thread() - before;
    };
    pass();
    const std::int64_t faults = pass();
    CHECK(sanitized() || faults == 0);
}

TEST("without prefaulting there is no thread and no lock, and vmsplice takes the faults") {
    const File file(8 * kWindow);
    Cache cache(kAmple, {.prefault = false});
    CHECK_EQ(cache.windows.prefault_tid(), 0);
    const Pipe pipe;
    const Acquired acquired = cache.acquire(file, 0, kWindow);
    CHECK(!acquired.locked);
    const std::int64_t before = faults_of_this_thread();
    CHECK_EQ(send(pipe, acquired), static_cast<ssize_t>(kWindow));
    CHECK(faults_of_this_thread() > before);
    CHECK(pipe.drain(kWindow) == patterned(0, kWindow));
}

TEST("many threads read the right bytes while windows come and go") {
    constexpr std::size_t kSize = 32 * kWindow;
    const File file(kSize);
    Cache cache(3 * kWindow,
                {.cap_bytes = 16 * kWindow, .lock_idle = std::chrono::milliseconds(0)});
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (unsigned seed = 0; seed < 4; ++seed) {
        threads.emplace_back([&, seed] {
            std::mt19937_64 random(seed);
            const Pipe pipe;
            for (std::uint64_t i = 0; i < 300; ++i) {
                const std::uint64_t offset = random() % (kSize - kWindow);
                const std::size_t size = 1 + random() % kWindow;
                const Acquired acquired = cache.acquire(file, offset, size, 1 + i / 100);
                const bool sent = send(pipe, acquired) == static_cast<ssize_t>(size);
                wrong += !sent || pipe.drain(size) != patterned(offset, size) ? 1 : 0;
                if (i % 100 == 50) {
                    cache.windows.forget(1 + random() % 3);
                }
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
    CHECK_EQ(wrong.load(), 0);
    CHECK(cache.windows.stats().bytes <= 16 * kWindow);
}

// A window of 4 GiB keeps the prefaulting thread busy long enough for a test.
struct SlowCache {
    explicit SlowCache(std::chrono::milliseconds wait)
        : file(0, kBytes),
          cache(kNoBudget, {.window_bytes = kBytes, .cap_bytes = kBytes, .wait = wait}) {}
    // By the page cache, its only trace.
    bool prefaulting() const {
        int error = 0;
        void* const start = sys::mmap(kPage, PROT_READ, MAP_SHARED, file.fd(), 0, error);
        CHECK(start != nullptr);
        unsigned char resident = 0;
        checked(::mincore(start, kPage, &resident), "mincore");
        sys::munmap(start, kPage);
        return (resident & 1) != 0;
    }
    static constexpr std::size_t kBytes = std::size_t{4} << 30;
    File file;
    Cache cache;
};

TEST("a stop while a thread waits ends the wait with ECANCELED") {
    SlowCache slow(std::chrono::seconds(30));
    std::atomic<int> error{1};
    std::jthread waiter([&] { error = slow.cache.acquire(slow.file, 0, kPage).error; });
    CHECK(within(std::chrono::seconds(5), [&] { return slow.prefaulting(); }));
    const auto before = std::chrono::steady_clock::now();
    slow.cache.windows.stop();
    waiter.join();
    CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(3));
    CHECK_EQ(error.load(), -ECANCELED);
    CHECK_EQ(slow.cache.windows.prefault_tid(), 0);
}

TEST("a prefaulting thread that is too slow is ETIMEDOUT") {
    SlowCache slow(std::chrono::milliseconds(1));
    CHECK_EQ(slow.cache.acquire(slow.file, 0, kPage).error, -ETIMEDOUT);
}

TEST("after a stop what is mapped is still served and what is not is ECANCELED") {
    const File file(4 * kWindow);
    Cache cache;
    cache.acquire(file, 0, kPage);
    CHECK(cache.windows.prefault_tid() > 0);
    cache.windows.stop();
    cache.windows.stop();
    CHECK_EQ(cache.acquire(file, 0, kPage).error, 0);
    CHECK_EQ(cache.acquire(file, 2 * kWindow, kPage).error, -ECANCELED);
}

TEST("a window size that is no power of two is refused") {
    bool refused = false;
    try {
        Cache cache(0, {.window_bytes = 3 * kPage});
    } catch (const std::invalid_argument&) {
        refused = true;
    }
    CHECK(refused);
}

TEST("a kernel that cannot populate leaves the faults to vmsplice and says so") {
    CHECK(sys::arm_faults("madvise:EINVAL:count=2"));
    const File file(kWindow);
    Cache cache(kNoBudget);
    const Acquired acquired = cache.acquire(file, 0, kWindow);
    CHECK_EQ(acquired.error, 0);
    CHECK_EQ(cache.windows.stats().unpopulated, 1U);
    const Pipe pipe;
    CHECK_EQ(send(pipe, acquired), static_cast<ssize_t>(kWindow));
}

TEST("a window that breaks while it is populated is mapped anew") {
    CHECK(sys::arm_faults("madvise:EFAULT:after=1:count=1"));
    const File file(kWindow);
    Cache cache(kNoBudget);
    CHECK_EQ(cache.acquire(file, 0, kWindow).error, 0);
    CHECK_EQ(cache.windows.stats().count, 1U);
    CHECK_EQ(cache.windows.stats().unpopulated, 0U);
}

TEST("a window that breaks again and again is used as it is") {
    CHECK(sys::arm_faults("madvise:EFAULT"));
    const File file(kWindow);
    Cache cache(kNoBudget);
    CHECK_EQ(cache.acquire(file, 0, kWindow).error, 0);
    CHECK_EQ(cache.windows.stats().unpopulated, 1U);
    CHECK_EQ(cache.acquire(file, 0, kWindow).error, 0);
    CHECK_EQ(cache.windows.stats().hits, 1U);
}

TEST("an mlock that fails leaves the window unlocked and the budget whole") {
    CHECK(sys::arm_faults("mlock:ENOMEM:count=1"));
    const File file(2 * kWindow);
    Cache cache;
    CHECK(!cache.acquire(file, 0, kPage).locked);
    CHECK_EQ(cache.budget->used(), 0U);
    CHECK_EQ(cache.windows.stats().unlocked, 1U);
    CHECK(cache.acquire(file, kWindow, kPage).locked);
}

TEST("an mmap that fails is its errno and leaves nothing behind") {
    CHECK(sys::arm_faults("mmap:ENOMEM:count=1"));
    const File file(kWindow);
    Cache cache;
    CHECK_EQ(cache.acquire(file, 0, kPage).error, -ENOMEM);
    CHECK_EQ(cache.windows.stats().count, 0U);
    CHECK_EQ(cache.acquire(file, 0, kPage).error, 0);
}

}  // namespace zc::test
