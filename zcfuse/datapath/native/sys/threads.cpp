#include "sys/threads.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>

#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <span>
#include <string_view>

#include "sys/syscalls.hpp"

namespace zc::sys {

namespace {

// The start of a file of /proc about a thread; "" if unreadable.
std::string_view read_of(pid_t tid, const char* file, std::span<char> into) noexcept {
    std::array<char, 64> path{};
    std::snprintf(path.data(), path.size(), "/proc/self/task/%d/%s", tid, file);
    const UniqueFd fd(::open(path.data(), O_RDONLY | O_CLOEXEC));
    const auto n = fd ? read(fd.get(), into.data(), into.size() - 1) : 0;
    into[n > 0 ? static_cast<std::size_t>(n) : 0] = '\0';
    return {into.data(), n > 0 ? static_cast<std::size_t>(n) : 0};
}

}  // namespace

bool bind_to(unsigned cpu) noexcept {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set) == 0;
}

int set_policy(pid_t tid, Policy policy) noexcept {
    sched_param priority{};
    int wanted = SCHED_BATCH;
    if (policy == Policy::idle) {
        wanted = SCHED_IDLE;
    } else if (policy == Policy::fifo) {
        wanted = SCHED_FIFO;
        priority.sched_priority = 1;
    }
    return ::sched_setscheduler(tid, wanted, &priority) == 0 ? 0 : -errno;
}

std::string why_not_idle() {
    if (run_times(thread_id()).runs == 0) {
        return "the kernel does not say how long a thread waits for a CPU (no schedstat)";
    }
    if (const int error = set_policy(thread_id(), Policy::idle); error < 0) {
        return std::string("SCHED_IDLE: ") + ::strerrorname_np(-error);
    }
    const sched_param none{};
    if (::sched_setscheduler(thread_id(), SCHED_OTHER, &none) != 0) {
        return std::string("leaving SCHED_IDLE: ") + ::strerrorname_np(errno) +
               ": it needs CAP_SYS_NICE, or a limit of nice priorities of 20 (ulimit -e)";
    }
    return {};
}

RunTimes run_times(pid_t tid) noexcept {
    std::array<char, 96> text{};
    std::uint64_t ran = 0;
    RunTimes times;
    if (read_of(tid, "schedstat", text).empty() ||
        std::sscanf(text.data(), "%" SCNu64 " %" SCNu64 " %" SCNu64, &ran, &times.waited_ns,
                    &times.runs) != 3) {
        return {};
    }
    return times;
}

bool is_runnable(pid_t tid) noexcept {
    std::array<char, 96> text{};
    // "TID (name) S ...": our threads' names have no parenthesis.
    const auto stat = read_of(tid, "stat", text);
    const auto end = stat.find(") ");
    return end != std::string_view::npos && end + 2 < stat.size() && stat[end + 2] == 'R';
}

}  // namespace zc::sys
