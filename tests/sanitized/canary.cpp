// Errors that the sanitizers must find in a library that an interpreter loads.
#include <thread>

static int shared;

extern "C" int run() {
    auto count = [] {
        for (int i = 0; i < 1000; ++i) {
            ++shared;
        }
    };
    std::thread one(count);
    std::thread other(count);
    one.join();
    other.join();
    volatile int most = 2147483647;
    most = most + 1;
    int* freed = new int(1);
    delete freed;
    return *const_cast<volatile int*>(freed);
}
