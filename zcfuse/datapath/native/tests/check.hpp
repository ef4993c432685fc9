// A minimal test framework: registration under a sentence, checks that print the values, and a
// deadline for the whole program, so that a hanging test fails.
//
//     TEST("a window serves the bytes of its file") { CHECK_EQ(acquired.error, 0); }
//
// A failed check ends its test and not the program. Only the test's thread may use checks.
#pragma once

#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>

namespace zc::test {

struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Registration {
    Registration(const char* name, std::function<void()> body);
};

template <class T>
std::string shown(const T& value) {
    std::ostringstream out;
    out << value;
    return out.str();
}

// Runs the tests whose names contain one of the words, or all; returns the exit status.
int run_tests(int count, char** words);

[[noreturn]] void fail(const char* file, int line, const std::string& what);

template <class A, class B>
void check_equal(const A& is, const B& wanted, const char* text, const char* file, int line) {
    if (!(is == wanted)) {
        fail(file, line, std::string(text) + " is " + shown(is) + ", not " + shown(wanted));
    }
}

// True where a sanitizer makes counts of page faults meaningless.
constexpr bool sanitized() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return true;
#else
    return false;
#endif
#else
    return false;
#endif
}

}  // namespace zc::test

#define ZC_JOIN2(a, b) a##b
#define ZC_JOIN(a, b) ZC_JOIN2(a, b)
#define TEST(name)                                                                                \
    static void ZC_JOIN(test_, __LINE__)();                                                       \
    static const zc::test::Registration ZC_JOIN(registered_, __LINE__)(name,                      \
                                                                       ZC_JOIN(test_, __LINE__)); \
    static void ZC_JOIN(test_, __LINE__)()

#define CHECK(condition)                                    \
    do {                                                    \
        if (!(condition))                                   \
            zc::test::fail(__FILE__, __LINE__, #condition); \
    } while (false)
#define CHECK_EQ(is, wanted) zc::test::check_equal((is), (wanted), #is, __FILE__, __LINE__)
