#include "holder/child.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>

namespace zc::holder {

namespace {

std::system_error failed(const char* what) {
    return {errno, std::generic_category(), what};
}

// In the child: only system calls from here to execv(2).
void put_at(int descriptor, int place) noexcept {
    if (descriptor >= 0 && ::dup2(descriptor, place) < 0) {
        ::_exit(126);
    }
}

[[noreturn]] void become(const Command& command, int socket) noexcept {
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    if (command.own_group) {
        ::setpgid(0, 0);
    }
    put_at(socket, kSocketAt);
    put_at(command.plan, kPlanAt);
    put_at(command.report, kReportAt);
    ::execv(command.arguments[0], command.arguments);
    ::_exit(127);
}

}  // namespace

Child::Child(const Command& command) {
    std::array<int, 2> ends{-1, -1};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) < 0) {
        throw failed("socketpair");
    }
    const sys::UniqueFd low_ours(ends[0]);
    const sys::UniqueFd low_theirs(ends[1]);
    sys::UniqueFd ours(::fcntl(ends[0], F_DUPFD_CLOEXEC, kFirstOwn));
    const sys::UniqueFd theirs(::fcntl(ends[1], F_DUPFD_CLOEXEC, kFirstOwn));
    if (!ours || !theirs) {
        throw failed("fcntl");
    }
    static_cast<Link&>(*this) = Link(std::move(ours));
    const pid_t pid = ::fork();
    if (pid < 0) {
        throw failed("fork");
    }
    if (pid == 0) {
        become(command, theirs.get());
    }
    process_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!process_) {
        const auto error = failed("pidfd_open");
        ::kill(pid, SIGKILL);
        ::waitpid(pid, nullptr, 0);
        throw error;
    }
}

Child::Child(Child&& other) noexcept
    : Link(std::move(other)), process_(std::move(other.process_)) {}

Child& Child::operator=(Child&& other) noexcept {
    if (this != &other) {
        end();
        Link::operator=(std::move(other));
        process_ = std::move(other.process_);
    }
    return *this;
}

void Child::signal(int number) const noexcept {
    ::syscall(SYS_pidfd_send_signal, process_.get(), number, nullptr, 0);
}

std::optional<End> Child::reap() noexcept {
    siginfo_t info{};
    if (!process_ ||
        ::waitid(P_PIDFD, static_cast<id_t>(process_.get()), &info, WEXITED | WNOHANG) < 0) {
        return std::nullopt;
    }
    if (info.si_pid == 0) {
        return std::nullopt;
    }
    process_.reset();
    if (info.si_code == CLD_EXITED) {
        return End{0, info.si_status};
    }
    return End{info.si_status, 0};
}

void Child::end() noexcept {
    if (process_) {
        signal(SIGKILL);
        siginfo_t info{};
        while (::waitid(P_PIDFD, static_cast<id_t>(process_.get()), &info, WEXITED) < 0 &&
               errno == EINTR) {
        }
        process_.reset();
    }
}

}  // namespace zc::holder
