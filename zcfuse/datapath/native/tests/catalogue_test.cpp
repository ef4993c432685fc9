// Catalogues: what is found in one, what a damaged one does not lead to, and leases that end while
// they are used.
#include <atomic>
#include <limits>
#include <thread>

#include "check.hpp"
#include "sample_catalogue.hpp"
#include "serve/nodes/catalogues.hpp"
#include "serve/nodes/mirrors.hpp"

namespace zc::test {

namespace {

constexpr std::uint64_t kFileBytes = 100'000;

struct Found {
    int error = 0;
    std::uint32_t node = 0;
};

Found look(const Catalogue& catalogue, std::uint32_t directory, std::string_view name) {
    Found found;
    found.error = catalogue.lookup(directory, name, found.node);
    return found;
}

int extents_of(const Catalogue& catalogue, std::uint32_t node, std::vector<Extent>& into) {
    into.clear();
    return catalogue.extents(node, into);
}

TEST("every name leads to its node and a missing one to none") {
    const File file(kFileBytes);
    const auto catalogue = sample_catalogue(file);
    CHECK_EQ(look(*catalogue, 0, "file").node, 1U);
    CHECK_EQ(look(*catalogue, 0, "sub").node, 5U);
    CHECK_EQ(look(*catalogue, 5, "above").node, 5U);
    CHECK_EQ(look(*catalogue, 0, "fil").error, -ENOENT);
    CHECK_EQ(look(*catalogue, 0, "zz").error, -ENOENT);
    CHECK_EQ(look(*catalogue, 1, "file").error, -ENOTDIR);
    CHECK_EQ(look(*catalogue, 0, std::string(256, 'x')).error, -ENAMETOOLONG);
}

TEST("holes lie between the pieces of a sparse member") {
    const File file(kFileBytes);
    const auto catalogue = sample_catalogue(file);
    std::vector<Extent> extents;
    CHECK_EQ(extents_of(*catalogue, 2, extents), 0);
    CHECK_EQ(extents.size(), 5U);
    std::uint64_t size = 0;
    for (const auto& extent : extents) {
        size += extent.length;
    }
    CHECK_EQ(size, 90'000U);
    CHECK(extents[0].hole && !extents[1].hole && extents[2].hole);
}

TEST("what is packed or damaged or not there is left to control") {
    const File file(kFileBytes);
    const auto catalogue = sample_catalogue(file);
    std::vector<Extent> extents;
    abi::Attr attributes{};
    CHECK_EQ(extents_of(*catalogue, 3, extents), kHandUp);  // packed
    CHECK_EQ(extents_of(*catalogue, 6, extents), kHandUp);  // torn
    CHECK_EQ(catalogue->attributes(7, attributes), kHandUp);
    Catalogue::Names names;
    CHECK_EQ(catalogue->names_of(5, names), 0);
    Catalogue::Entry entry;
    CHECK_EQ(catalogue->entry(names.first + 2, entry), kHandUp);
}

TEST("directories that claim one another's names are not gone through for each") {
    CatalogueSections made;
    constexpr std::uint32_t kMany = 200'000;
    for (std::uint32_t i = 0; i < kMany; ++i) {
        made.node(1, S_IFDIR | 0755, 0, 0, kMany);
    }
    for (std::uint32_t i = 0; i < kMany; ++i) {
        made.name("", kMany - 1);
    }
    const Catalogue catalogue(made.take(), {}, {}, {});
    CHECK_EQ(catalogue.above(kMany - 1), 0U);
    CHECK_EQ(catalogue.above(1), 1U);
}

TEST("a time before 1970 has a part of a second that counts up") {
    CatalogueSections made;
    made.node(2, S_IFREG | 0644, 0, 0, 0, 0, -1);
    made.node(2, S_IFREG | 0644, 0, 0, 0, 0, std::numeric_limits<std::int64_t>::min());
    const Catalogue catalogue(made.take(), {}, {}, {});
    abi::Attr attributes{};
    CHECK_EQ(catalogue.attributes(0, attributes), 0);
    CHECK_EQ(static_cast<std::int64_t>(attributes.mtime), -1);
    CHECK_EQ(attributes.mtimensec, 999'999'999U);
    CHECK_EQ(catalogue.attributes(1, attributes), 0);
    CHECK_EQ(static_cast<std::int64_t>(attributes.mtime), -9'223'372'037);
    CHECK_EQ(attributes.mtimensec, 145'224'192U);
}

TEST("an archive that was written is another") {
    const File file(kFileBytes);
    const auto catalogue = sample_catalogue(file);
    CHECK(catalogue->is_unchanged());
    file.resize(kFileBytes + 1);
    CHECK(!catalogue->is_unchanged());
}

TEST("a lease that ends leaves those who use it what they have") {
    const File file(kFileBytes);
    Catalogues catalogues;
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> seen{0};
    std::atomic<std::uint64_t> wrong{0};
    std::thread user([&] {
        while (!stop) {
            if (const auto place = catalogues.find(5)) {
                wrong += look(*place->catalogue, place->node, "file").node == 1 ? 0 : 1;
                const auto below = catalogues.find(place->nodeid_of(1));
                wrong += !below || below->node == 1 ? 0 : 1;
                catalogues.describe(place->nodeid_of(1));
                ++seen;
            }
        }
    });
    for (int i = 0; i < 200 || seen == 0; ++i) {
        catalogues.lease(5, sample_catalogue(file));
        std::this_thread::yield();
        catalogues.revoke(5);
        catalogues.drop(5);
        CHECK(!catalogues.find(5));
    }
    stop = true;
    user.join();
    CHECK_EQ(wrong.load(), 0U);
    CHECK_EQ(catalogues.statistics().leased, 0U);
}

}  // namespace

}  // namespace zc::test
