// An archive's index for the tests and the fuzzer, with a member of each kind and damaged
// records.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "files.hpp"
#include "messages.hpp"
#include "serve/sources/member_index.hpp"
#include "sys/files.hpp"

namespace zc::test {

class IndexSections {
  public:
    void node(std::uint8_t kind, std::uint32_t mode, std::uint64_t size, std::uint64_t place,
              std::uint64_t extent, std::uint32_t detail = 0,
              std::int64_t mtime_ns = 1'000'000'000) {
        const std::uint32_t numbers[] = {mode, 0, 0, 1};
        const std::uint64_t places[] = {static_cast<std::uint64_t>(mtime_ns), size, place, extent};
        const std::uint32_t ends[] = {detail, kind};
        add(sections_.nodes, numbers);
        add(sections_.nodes, places);
        add(sections_.nodes, ends);
    }
    void name(std::string_view name, std::uint32_t node) {
        const std::uint64_t at[] = {sections_.names.size()};
        const std::uint32_t rest[] = {node, static_cast<std::uint32_t>(name.size())};
        add(sections_.entries, at);
        add(sections_.entries, rest);
        sections_.names += name;
    }
    void piece(std::uint64_t logical, std::uint64_t offset, std::uint64_t length) {
        const std::uint64_t piece[] = {logical, offset, length};
        add(sections_.pieces, piece);
    }
    MemberIndex::Sections take() { return std::move(sections_); }

  private:
    template <class Numbers>
    static void add(std::string& to, const Numbers& numbers) {
        to.append(reinterpret_cast<const char*>(&numbers), sizeof numbers);
    }
    MemberIndex::Sections sections_;
};

inline std::shared_ptr<const MemberIndex> sample_index(const File& file) {
    IndexSections made;
    made.node(1, S_IFDIR | 0755, 0, 0, 7);
    made.node(2, S_IFREG | 0644, 5000, 512, 0);
    made.node(3, S_IFREG | 0644, 90'000, 0, 2, 3);
    made.node(5, S_IFREG | 0644, 100, 512, 50);
    made.node(4, S_IFLNK | 0777, 4, 0, 4);
    made.node(1, S_IFDIR | 0700, 0, 7, 2);
    made.node(3, S_IFREG | 0644, 10, 1, ~std::uint64_t{0});
    const char* const names[] = {"file", "holes", "packed", "soft", "sub", "torn", "void"};
    for (std::uint32_t i = 0; i < 7; ++i) {
        made.name(names[i], i + 1);
    }
    made.name("above", 5);
    made.name("file", 1);
    made.piece(4096, 100, 1000);
    made.piece(70'000, 2000, 500);
    struct ::statx status {};
    CHECK_EQ(sys::status_of(file.fd(), "", false, status), 0);
    const auto nanoseconds = [](const statx_timestamp& time) {
        return time.tv_sec * 1'000'000'000 + time.tv_nsec;
    };
    sys::UniqueFd copy;
    CHECK_EQ(sys::dup_cloexec(file.fd(), copy), 0);
    return std::make_shared<const MemberIndex>(
        made.take(),
        MemberIndex::Version{status.stx_size, nanoseconds(status.stx_mtime),
                             nanoseconds(status.stx_ctime)},
        MemberIndex::Shown{1ULL << 63, {}, 7}, std::move(copy));
}

}  // namespace zc::test
