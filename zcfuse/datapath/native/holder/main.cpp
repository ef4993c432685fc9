// zcfuse-holder PLAN REPORT GROUND PROGRAM ARGUMENT...
//
// PLAN: the descriptor of the plan, for every child. REPORT: the pipe that the first child reports
// to, or -1. GROUND: "foreground"; "background", which gives standard error up once the mount
// answers; or "journal", which keeps it. PROGRAM with its arguments is every child; the
// first gets the further argument "first".
#include <fcntl.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>
#include <vector>

#include "holder/holder.hpp"

namespace {

zc::sys::UniqueFd moved(const char* text) {
    const zc::sys::UniqueFd low(std::atoi(text));
    return zc::sys::UniqueFd(low ? ::fcntl(low.get(), F_DUPFD_CLOEXEC, zc::holder::kFirstOwn) : -1);
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 5) {
        std::fputs("zcfuse-holder: zcfuse starts it, for 'zcfuse mount --survive'\n", stderr);
        return 2;
    }
    try {
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
