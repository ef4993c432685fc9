// The inode numbers of copies in an upper layer.
#include "serve/sources/copy_numbers.hpp"

#include "check.hpp"

namespace zc::test {

namespace {

struct ::statx file(std::uint64_t number, std::int64_t birth) {
    struct ::statx status {};
    status.stx_mask = STATX_BTIME;
    status.stx_ino = number;
    status.stx_btime.tv_sec = birth;
    return status;
}

}  // namespace

TEST("a copy shows the number of its original, and a later file with the copy's number its own") {
    CopyNumbers numbers;
    CHECK_EQ(numbers.of(file(7, 1)), 0U);
    numbers.keep(*CopyNumbers::born(file(7, 1)), 42);
    CHECK_EQ(numbers.of(file(7, 1)), 42U);
    CHECK_EQ(numbers.of(file(7, 2)), 0U);
}

TEST("the oldest copy shows its own number again where there are too many") {
    CopyNumbers numbers(2);
    for (std::uint64_t copy = 1; copy <= 3; ++copy) {
        numbers.keep(*CopyNumbers::born(file(copy, 1)), 100 + copy);
    }
    CHECK_EQ(numbers.of(file(1, 1)), 0U);
    CHECK_EQ(numbers.of(file(2, 1)), 102U);
    CHECK_EQ(numbers.of(file(3, 1)), 103U);
}

TEST("a copy that is kept twice takes one place") {
    CopyNumbers numbers(2);
    numbers.keep(*CopyNumbers::born(file(1, 1)), 101);
    numbers.keep(*CopyNumbers::born(file(2, 1)), 102);
    numbers.keep(*CopyNumbers::born(file(2, 1)), 103);
    CHECK_EQ(numbers.of(file(1, 1)), 101U);
    CHECK_EQ(numbers.of(file(2, 1)), 103U);
}

}  // namespace zc::test
