#include "sys/threads.hpp"

#include <pthread.h>
#include <sched.h>

namespace zc::sys {

bool bind_to(unsigned cpu) noexcept {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set) == 0;
}

void yield_to_clients() noexcept {
    const sched_param none{};
    ::pthread_setschedparam(::pthread_self(), SCHED_BATCH, &none);
}

}  // namespace zc::sys
