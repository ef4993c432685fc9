// Makes an error that one sanitizer must find, and exits with 0 without it.
#include <climits>
#include <memory>
#include <thread>

namespace {

// Hides the deliberate error from the optimiser.
template <class T>
T opaque(T value) {
    volatile T hidden = value;
    return hidden;
}

[[maybe_unused]] void use_after_free() {
    auto owner = std::make_unique<int>(1);
    int* const freed = opaque(owner.get());
    owner.reset();
    *freed = 2;
}

[[maybe_unused]] void overflow() {
    int most = opaque(INT_MAX);
    ++most;
    static_cast<void>(opaque(most));
}

[[maybe_unused]] void race() {
    int shared = 0;
    std::thread other([&shared] { shared = opaque(1); });
    shared = opaque(2);
    other.join();
    static_cast<void>(opaque(shared));
}

}  // namespace

int main() {
#if defined(ZCFUSE_CANARY_address)
    use_after_free();
#elif defined(ZCFUSE_CANARY_undefined)
    overflow();
#elif defined(ZCFUSE_CANARY_thread)
    race();
#else
#error "no canary for this sanitizer"
#endif
}
