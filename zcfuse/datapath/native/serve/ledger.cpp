#include "serve/ledger.hpp"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "sys/syscalls.hpp"

namespace zc {

std::string_view path_name(Path path) noexcept {
    static constexpr std::array<std::string_view, static_cast<std::size_t>(Path::count_)> names{
        "upcall", "pool", "mmap", "splice"};
    return names[static_cast<std::size_t>(path)];
}

Way way_of(Path path) noexcept {
    static constexpr std::array<Way, static_cast<std::size_t>(Path::count_)> ways{
        Way::upcall, Way::pool, Way::mmap, Way::splice};
    return ways[static_cast<std::size_t>(path)];
}

std::shared_ptr<ThreadCounts> Ledger::join(std::string role) {
    auto counts = std::make_shared<ThreadCounts>(hot_places_, is_open_);
    counts->role = std::move(role);
    counts->tid = sys::thread_id();
    const std::lock_guard guard(lock_);
    if (traced_ > 0) {
        counts->trace.begin(traced_);
    }
    threads_.push_back(counts);
    return counts;
}

void Ledger::trace(std::size_t most) {
    const std::lock_guard guard(lock_);
    traced_ = most;
    for (const auto& thread : threads_) {
        if (most > 0) {
            thread->trace.begin(most);
        } else {
            thread->trace.end();
        }
    }
}

std::uint64_t Ledger::drain(std::vector<Events>& into) const {
    std::uint64_t lost = 0;
    for (const auto& thread : threads()) {
        Events noted;
        lost += thread->trace.drain(noted);
        if (noted.used > 0) {
            into.push_back(std::move(noted));
        }
    }
    return lost;
}

void Ledger::opened(std::string_view mode, const Cause& cause) {
    const std::lock_guard guard(lock_);
    ++opens_[std::string(mode)];
    if (cause) {
        ++open_causes_[cause.text()];
    }
}

void Ledger::settle() const {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(5);
    for (const auto& thread : threads()) {
        const auto turn = thread->turns.load(std::memory_order_acquire);
        while (turn % 2 == 1 && thread->turns.load(std::memory_order_acquire) == turn &&
               std::chrono::steady_clock::now() < deadline) {
            std::this_thread::yield();
        }
    }
}

std::vector<std::shared_ptr<ThreadCounts>> Ledger::threads() const {
    const std::lock_guard guard(lock_);
    return threads_;
}

std::vector<Ledger::HotFile> Ledger::hot_files(std::size_t most) const {
    HotFiles::Uses uses;
    for (const auto& thread : threads()) {
        thread->files.add_to(uses);
    }
    std::vector<HotFile> all;
    all.reserve(uses.size());
    for (const auto& [nodeid, use] : uses) {
        all.push_back({nodeid, use});
    }
    const auto by_requests = [](const HotFile& a, const HotFile& b) {
        return a.use.requests() > b.use.requests();
    };
    const auto by_bytes = [](const HotFile& a, const HotFile& b) {
        return a.use.bytes > b.use.bytes;
    };
    const auto end = [&all, most](std::size_t from) {
        return all.begin() + static_cast<std::ptrdiff_t>(std::min(all.size(), from + most));
    };
    std::partial_sort(all.begin(), end(0), all.end(), by_requests);
    std::partial_sort(end(0), end(most), all.end(), by_bytes);
    all.erase(end(most), all.end());
    return all;
}

std::map<std::string, std::uint64_t> Ledger::opens() const {
    const std::lock_guard guard(lock_);
    return opens_;
}

std::map<std::string, std::uint64_t> Ledger::fallbacks() const {
    std::map<std::string, std::uint64_t> all;
    std::vector<std::shared_ptr<ThreadCounts>> threads;
    {
        const std::lock_guard guard(lock_);
        all = open_causes_;
        threads = threads_;
    }
    for (const auto& thread : threads) {
        for (std::size_t i = 0; i < thread->reasons.size(); ++i) {
            if (const auto n = thread->reasons[i].get(); n > 0) {
                all[std::string(code_of(static_cast<Reason>(i)))] += n;
            }
        }
    }
    return all;
}

}  // namespace zc
