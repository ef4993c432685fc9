#include <unistd.h>

#include "check.hpp"

namespace {

constexpr unsigned kDeadlineSeconds = 120;  // then SIGALRM ends it after the test's name

}  // namespace

int main(int count, char** words) {
    ::alarm(kDeadlineSeconds);
    return zc::test::run_tests(count, words);
}
