// zcfuse-holder PLAN REPORT GROUND PROGRAM ARGUMENT...
// zcfuse-holder program SOCKET MILLISECONDS
//
// The first form starts daemons. The second one, in the background, keeps a mount for programs:
// SOCKET is the end that the first one left it, MILLISECONDS how long to wait for each further one.
//
// PLAN: the descriptor of the plan, for every child. REPORT: the pipe that the first child reports
// to, or -1. GROUND: "foreground"; "background", which gives standard error up once the mount
// answers; or "journal", which keeps it. PROGRAM with its arguments is every child; the
// first gets the further argument "first".
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>
#include <vector>

#include "holder/holder.hpp"
#include "holder/program_holder.hpp"

namespace {

zc::sys::UniqueFd moved(const char* text) {
    const zc::sys::UniqueFd low(std::atoi(text));
    return zc::sys::UniqueFd(low ? ::fcntl(low.get(), F_DUPFD_CLOEXEC, zc::holder::kFirstOwn) : -1);
}

int keep_for_programs(const char* socket, const char* wait) {
    zc::sys::UniqueFd first(std::atoi(socket));
    if (::daemon(0, 0) < 0) {
        std::perror("zcfuse-holder: daemon");
        return 1;
    }
    zc::holder::ProgramHolder(std::move(first), std::chrono::milliseconds(std::atoll(wait))).run();
    return 0;
}

}  // namespace

int main(int count, char** arguments) {
    const bool for_program = count == 4 && std::string_view(arguments[1]) == "program";
    if (count < 5 && !for_program) {
        std::fputs("zcfuse-holder: zcfuse starts it, for a mount that survives\n", stderr);
        return 2;
    }
    try {
        if (for_program) {
            return keep_for_programs(arguments[2], arguments[3]);
        }
        std::vector<char*> successors(arguments + 4, arguments + count);
        std::vector<char*> first = successors;
        static char mark[] = "first";
        first.push_back(mark);
        first.push_back(nullptr);
        successors.push_back(nullptr);
        const std::string_view ground(arguments[3]);
        zc::holder::Holder holder({first.data(), successors.data(), moved(arguments[1]),
                                   moved(arguments[2]), ground != "foreground",
                                   ground == "background"});
        return holder.run();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "zcfuse-holder: %s\n", error.what());
        return 1;
    }
}
