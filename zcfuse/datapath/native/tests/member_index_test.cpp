// Indexes: lookups in a sound and in a damaged one, one as a layer below a real directory, and
// leases that end during use.
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "check.hpp"
#include "sample_index.hpp"
#include "serve/nodes/leased_nodes.hpp"
#include "serve/sources/directory_source.hpp"
#include "serve/sources/index_source.hpp"
#include "serve/sources/overlay.hpp"

namespace zc::test {

namespace {

constexpr std::uint64_t kFileBytes = 100'000;

struct Looked {
    int error = 0;
    std::uint32_t node = 0;
};

Looked look(const MemberIndex& index, std::uint32_t directory, std::string_view name) {
    Looked found;
    found.error = index.lookup(directory, name, found.node);
    return found;
}

int extents_of(const MemberIndex& index, std::uint32_t node, std::vector<Extent>& into) {
    into.clear();
    return index.extents(node, into);
}

TEST("every name leads to its node and a missing one to none") {
    const File file(kFileBytes);
    const auto index = sample_index(file);
    CHECK_EQ(look(*index, 0, "file").node, 1U);
    CHECK_EQ(look(*index, 0, "sub").node, 5U);
    CHECK_EQ(look(*index, 5, "above").node, 5U);
    CHECK_EQ(look(*index, 0, "fil").error, -ENOENT);
    CHECK_EQ(look(*index, 0, "zz").error, -ENOENT);
    CHECK_EQ(look(*index, 1, "file").error, -ENOTDIR);
    CHECK_EQ(look(*index, 0, std::string(256, 'x')).error, -ENAMETOOLONG);
}

TEST("holes lie between the pieces of a sparse member") {
    const File file(kFileBytes);
    const auto index = sample_index(file);
    std::vector<Extent> extents;
    CHECK_EQ(extents_of(*index, 2, extents), 0);
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
    const auto index = sample_index(file);
    std::vector<Extent> extents;
    abi::Attr attributes{};
    CHECK_EQ(extents_of(*index, 3, extents), kUpcall);  // packed
    CHECK_EQ(extents_of(*index, 6, extents), kUpcall);  // torn
    CHECK_EQ(index->attributes(7, attributes), kUpcall);
    MemberIndex::Names names;
    CHECK_EQ(index->names_of(5, names), 0);
    MemberIndex::Entry entry;
    CHECK_EQ(index->entry(names.first + 2, entry), kUpcall);
}

TEST("directories that claim one another's names are not gone through for each") {
    IndexSections made;
    constexpr std::uint32_t kMany = 200'000;
    for (std::uint32_t i = 0; i < kMany; ++i) {
        made.node(1, S_IFDIR | 0755, 0, 0, kMany);
    }
    for (std::uint32_t i = 0; i < kMany; ++i) {
        made.name("", kMany - 1);
    }
    const MemberIndex index(made.take(), {}, {}, {});
    CHECK_EQ(index.above(kMany - 1), 0U);
    CHECK_EQ(index.above(1), 1U);
}

TEST("a time before 1970 has a part of a second that counts up") {
    IndexSections made;
    made.node(2, S_IFREG | 0644, 0, 0, 0, 0, -1);
    made.node(2, S_IFREG | 0644, 0, 0, 0, 0, std::numeric_limits<std::int64_t>::min());
    const MemberIndex index(made.take(), {}, {}, {});
    abi::Attr attributes{};
    CHECK_EQ(index.attributes(0, attributes), 0);
    CHECK_EQ(static_cast<std::int64_t>(attributes.mtime), -1);
    CHECK_EQ(attributes.mtimensec, 999'999'999U);
    CHECK_EQ(index.attributes(1, attributes), 0);
    CHECK_EQ(static_cast<std::int64_t>(attributes.mtime), -9'223'372'037);
    CHECK_EQ(attributes.mtimensec, 145'224'192U);
}

TEST("an archive that was written is another") {
    const File file(kFileBytes);
    const auto index = sample_index(file);
    CHECK(index->is_unchanged());
    file.resize(kFileBytes + 1);
    CHECK(!index->is_unchanged());
}

std::vector<std::string> names_of(const SourceDirectory& directory) {
    std::unique_ptr<Listing> listing;
    std::vector<struct ::statx> versions;
    CHECK_EQ(directory.list(listing, versions), 0);
    CHECK_EQ(listing->seek(0), 0);
    std::vector<std::string> names;
    for (Listing::Entry entry; listing->peek(entry) == 1; listing->skip()) {
        names.emplace_back(entry.text());
    }
    std::sort(names.begin(), names.end());
    return names;
}

TEST("a directory above an index hides, adds and merges names") {
    const File file(kFileBytes);
    std::string pattern = (std::filesystem::temp_directory_path() / "zcfuse-over-XXXXXX").string();
    CHECK(::mkdtemp(pattern.data()) != nullptr);
    const std::filesystem::path above(pattern);
    std::filesystem::create_directories(above / "sub");
    for (const char* name : {"new", ".wh.soft", "sub/.wh.file"}) {
        std::ofstream(above / name) << "above";
    }
    const sys::UniqueFd fd(::open(above.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    const auto overlay = OverlaySource::make(
        {DirectorySource::open(fd.get()), IndexSource::make(sample_index(file))}, true);
    const auto root = overlay->root();
    Found found;
    CHECK_EQ(root->find("file", found), 0);
    CHECK_EQ(found.identity.lease, 1U);
    Opened opened;
    CHECK_EQ(root->open("file", found.identity, opened), 0);
    CHECK_EQ(opened.extents.size(), 1U);
    CHECK_EQ(root->find("soft", found), -ENOENT);
    CHECK_EQ(root->find("new", found), 0);
    CHECK_EQ(found.identity.lease, 0U);
    SourceDirectory::Ref sub;
    CHECK_EQ(root->enter("sub", sub), 0);
    CHECK(names_of(*sub) == (std::vector<std::string>{".", "..", "above"}));
    CHECK_EQ(sub->find("file", found), -ENOENT);
    CHECK_EQ(sub->enter("above", sub), 0);  // a directory that holds itself
    std::filesystem::remove_all(above);
}

TEST("a lease that ends leaves those who use it what they have") {
    const File file(kFileBytes);
    LeaseTable leases;
    SurvivingState surviving;
    LeasedNodes tree(leases, {}, surviving);
    ThreadCounts counts;
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> seen{0};
    std::atomic<std::uint64_t> wrong{0};
    std::thread user([&] {
        while (!stop) {
            std::shared_ptr<const Directory> root;
            Found found;
            if (tree.directory(5, counts, root) == 0) {
                wrong += tree.find(*root, "file", found) == 0 ? 0 : 1;
                const auto nodeid = tree.nodes().count(found.identity, 5, "file", false);
                tree.describe(nodeid);
                tree.nodes().forget(nodeid, 1);
                ++seen;
            }
        }
    });
    for (int i = 0; i < 200 || seen == 0; ++i) {
        tree.lease(5, IndexSource::make(sample_index(file)));
        std::this_thread::yield();
        tree.revoke(5);
        tree.drop(5);
        CHECK(tree.root_of(5) == nullptr);
    }
    stop = true;
    user.join();
    CHECK_EQ(wrong.load(), 0U);
    CHECK_EQ(tree.statistics().leased, 0U);
}

}  // namespace

}  // namespace zc::test
