#include "check.hpp"

#include <cstdio>
#include <exception>
#include <utility>
#include <vector>

#include "sys/faults.hpp"

namespace zc::test {

namespace {

using Tests = std::vector<std::pair<std::string, std::function<void()>>>;

Tests& tests() {
    static Tests all;
    return all;
}

bool wanted(const std::string& name, int count, char** words) {
    for (int i = 1; i < count; ++i) {
        if (name.find(words[i]) != std::string::npos) {
            return true;
        }
    }
    return count < 2;
}

bool passes(const std::string& name, const std::function<void()>& body) {
    std::printf("%s ... ", name.c_str());
    std::fflush(stdout);
    std::string trouble;
    try {
        body();
    } catch (const std::exception& error) {
        trouble = error.what();
    }
    sys::arm_faults("");
    std::printf("%s%s\n", trouble.empty() ? "ok" : "FAILED\n    ", trouble.c_str());
    std::fflush(stdout);
    return trouble.empty();
}

}  // namespace

Registration::Registration(const char* name, std::function<void()> body) {
    tests().emplace_back(name, std::move(body));
}

void fail(const char* file, int line, const std::string& what) {
    throw Failure(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

int run_tests(int count, char** words) {
    int run = 0;
    int failed = 0;
    for (const auto& [name, body] : tests()) {
        if (wanted(name, count, words)) {
            ++run;
            failed += passes(name, body) ? 0 : 1;
        }
    }
    std::printf("%d run, %d failed\n", run, failed);
    return run == 0 || failed != 0 ? 1 : 0;
}

}  // namespace zc::test
