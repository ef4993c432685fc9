// The kernel's protocol over a socket pair: upcalls, own answers, and exactly one answer per
// request whatever fails.
#include <algorithm>
#include <random>

#include "check.hpp"
#include "player.hpp"

namespace zc::test {

namespace {

using abi::Opcode;

constexpr std::uint64_t kNode = 2;
constexpr std::uint32_t kPage = 4096;
constexpr std::size_t kFileSize = 300'000;
constexpr const char* kPaths[] = {"auto", "pool", "mmap", "splice"};

std::vector<std::uint8_t> expected(std::uint64_t offset, std::size_t size) {
    const std::uint64_t end = std::min<std::uint64_t>(offset + size, kFileSize);
    return end <= offset ? std::vector<std::uint8_t>{}
                         : patterned(offset, static_cast<std::size_t>(end - offset));
}

abi::EntryOut entry(std::uint64_t nodeid) {
    abi::EntryOut out{};
    out.nodeid = nodeid;
    out.attr.ino = nodeid;
    return out;
}

}  // namespace

TEST("INIT goes up unchanged and its reply comes down amended") {
    const Player player;
    const Bytes init = init_request(2);
    player.kernel.send(init);
    CHECK(player.control.receive() == init);
    abi::InitOut out{};
    out.major = 7;
    out.minor = 38;
    out.flags = static_cast<std::uint32_t>(abi::init::writeback_cache);
    player.control.send(reply(2, 0, out));
    const auto amended =
        structure_at<abi::InitOut>(player.kernel.receive(), sizeof(abi::OutHeader));
    CHECK_EQ(amended.flags & abi::init::writeback_cache, 0U);
    CHECK((amended.flags & abi::init::parallel_dirops) != 0);
    CHECK(amended.max_pages > 0);
    CHECK(amended.max_background >= 12);
    CHECK(player.path->state().negotiation.outcome().done);
}

TEST("a LOOKUP goes up and its reply carries the st_ino that control told") {
    const Player player;
    player.path->state().numbers.set(7, 123'456);
    const Bytes lookup = request(Opcode::lookup, 4, 1, std::string_view("name\0", 5));
    player.kernel.send(lookup);
    CHECK(player.control.receive() == lookup);
    player.control.send(reply(4, 0, entry(7)));
    const Bytes down = player.kernel.receive();
    CHECK_EQ(header_of(down).unique, 4U);
    const auto out = structure_at<abi::EntryOut>(down, sizeof(abi::OutHeader));
    CHECK_EQ(out.nodeid, 7U);
    CHECK_EQ(out.attr.ino, 123'456U);
}

TEST("READDIRPLUS carries the st_ino of each entry") {
    const Player player;
    player.path->state().numbers.set(7, 70);
    player.path->state().numbers.set(8, 80);
    player.kernel.send(request(Opcode::readdirplus, 6, 1, abi::ReadIn{}));
    player.control.receive();
    const abi::Dirent name{7, 1, 3, 8};
    player.control.send(reply(6, 0, entry(7), name, std::string_view("abc\0\0\0\0\0", 8), entry(8),
                              name, std::string_view("xyz\0\0\0\0\0", 8)));
    const Bytes down = player.kernel.receive();
    const std::size_t second =
        sizeof(abi::OutHeader) + sizeof(abi::EntryOut) + sizeof(abi::Dirent) + 8;
    CHECK_EQ(structure_at<abi::EntryOut>(down, sizeof(abi::OutHeader)).attr.ino, 70U);
    CHECK_EQ(structure_at<abi::EntryOut>(down, second).attr.ino, 80U);
    CHECK_EQ(structure_at<abi::Dirent>(down, second + sizeof(abi::EntryOut)).ino, 80U);
}

TEST("READDIRPLUS carries the number of an entry without a node") {
    const Player player;
    player.kernel.send(request(Opcode::readdirplus, 6, 1, abi::ReadIn{}));
    player.control.receive();
    abi::EntryOut bare = entry(0);
    bare.generation = 70;
    const abi::Dirent name{0, 1, 3, 8};
    player.control.send(reply(6, 0, bare, name, std::string_view("abc\0\0\0\0\0", 8)));
    const Bytes down = player.kernel.receive();
    const auto out = structure_at<abi::EntryOut>(down, sizeof(abi::OutHeader));
    CHECK_EQ(out.nodeid, 0U);
    CHECK_EQ(out.generation, 0U);
    CHECK_EQ(structure_at<abi::Dirent>(down, sizeof(abi::OutHeader) + sizeof(abi::EntryOut)).ino,
             70U);
}

TEST("ENOSYS does not reach the kernel, which would never ask again") {
    const Player player;
    player.kernel.send(request(Opcode::getxattr, 8, kNode));
    player.control.receive();
    player.control.send(reply(8, -ENOSYS));
    CHECK_EQ(header_of(player.kernel.receive()).error, -EOPNOTSUPP);
}

TEST("a leased file is read by each path at random offsets and sizes") {
    const File file(kFileSize);
    for (const char* path : kPaths) {
        Player player(by(path));
        player.install(kNode, file);
        std::mt19937_64 random(4);
        for (int i = 0; i < 60; ++i) {
            const std::uint64_t offset = random() % (kFileSize + kPage);
            const auto size = static_cast<std::uint32_t>(1 + random() % (128 << 10));
            CHECK(player.read(offset, size) == expected(offset, size));
        }
        CHECK(player.control.silent());
    }
}

TEST("the largest READ is served by each path") {
    const File file(std::size_t{2} << 20);
    for (const char* path : kPaths) {
        Player player(by(path));
        player.install(kNode, file);
        const auto size =
            static_cast<std::uint32_t>(player.path->state().negotiation.limits().max_pages) * kPage;
        CHECK(player.read(0, size) == patterned(0, size));
        CHECK(player.read(kPage, size) == patterned(kPage, size));
    }
}

TEST("a READ larger than any that was negotiated is EINVAL") {
    const File file(kFileSize);
    Player player(by("pool"));
    player.install(kNode, file);
    CHECK_EQ(player.read_error(0, 64 << 20), -EINVAL);
}

TEST("the ledger counts by path what the system calls moved") {
    const File file(kFileSize);
    const struct {
        const char* name;
        Path path;
        std::uint64_t copied;
    } cases[] = {
        {"pool", Path::pool, 65'536}, {"mmap", Path::mmap, 0}, {"splice", Path::splice, 0}};
    for (const auto& one : cases) {
        Player player(by(one.name));
        player.install(kNode, file);
        player.read(0, 65'536);
        // Both are counted after the reply.
        CHECK(within(std::chrono::seconds(2),
                     [&] { return player.sum(one.path, &PathCounts::requests) == 1; }));
        CHECK_EQ(player.sum(one.path, &PathCounts::bytes), 65'536U);
        CHECK_EQ(player.sum(one.path, &PathCounts::copied_in), one.copied);
    }
}

TEST("a file of several extents is read as one") {
    const File first(10'000);
    const File second(kFileSize);
    for (const char* path : kPaths) {
        const Player player(by(path));
        const InstallExtent extents[] = {{first.fd(), 100, 5000}, {second.fd(), kPage, kWholeFile}};
        player.path->install(kNode, extents);
        auto wanted = patterned(100, 5000);
        const auto rest = patterned(kPage, 3000);
        wanted.insert(wanted.end(), rest.begin(), rest.end());
        CHECK(body_of(player.ask(read_request(2, kNode, 0, 8000))) == wanted);
    }
}

TEST("a hole between extents is zeros, and costs splice no copy") {
    const File file(10'000);
    for (const char* path : kPaths) {
        Player player(by(path));
        const InstallExtent extents[] = {
            {file.fd(), 10, 5000}, {-1, 0, 3 * kPage + 1}, {file.fd(), 0, 10}};
        player.path->install(kNode, extents);
        auto wanted = patterned(10, 5000);
        wanted.insert(wanted.end(), 3 * kPage + 1, 0);
        const auto rest = patterned(0, 10);
        wanted.insert(wanted.end(), rest.begin(), rest.end());
        CHECK(player.read(0, 65'536) == wanted);
    }
}

TEST("a file may be served by a path of its own") {
    const File file(kFileSize);
    Player player(by("pool"));
    const InstallExtent extents[] = {{file.fd(), 0, kWholeFile}};
    player.path->install(kNode, extents, "splice");
    CHECK(player.read(0, 65'536) == expected(0, 65'536));
    CHECK(within(std::chrono::seconds(2),
                 [&] { return player.sum(Path::splice, &PathCounts::requests) == 1; }));
}

TEST("a truncated file is a short READ by each path") {
    for (const char* path : kPaths) {
        const File file(kFileSize);
        Player player(by(path));
        player.install(kNode, file);
        CHECK(player.read(0, 65'536) == expected(0, 65'536));
        file.resize(50'000);
        CHECK(player.read(0, 65'536) == patterned(0, 50'000));
        CHECK(player.read(65'536, 65'536).empty());
        file.write(50'000, 50'000);
        CHECK(player.read(65'536, 65'536) == patterned(65'536, 34'464));
    }
}

TEST("a READ without a lease goes up, as all do by path upcall") {
    const File file(kFileSize);
    for (const char* path : {"pool", "upcall"}) {
        Player player(by(path));
        player.install(path == std::string("pool") ? 3 : kNode, file);
        const Bytes read = read_request(2, kNode, 0, kPage);
        player.kernel.send(read);
        CHECK(player.control.receive() == read);
        player.control.send(reply(2, 0, std::string_view("bytes")));
        CHECK(player.kernel.receive() == reply(2, 0, std::string_view("bytes")));
    }
}

TEST("a revoked lease is not served from") {
    const File file(kFileSize);
    Player player(by("mmap"));
    player.install(kNode, file);
    player.read(0, kPage);
    player.path->revoke(kNode);
    // The serving thread may hold the lease a little longer than its reply takes.
    CHECK(within(std::chrono::seconds(2),
                 [&] { return player.path->state().windows->stats().count == 0; }));
    player.kernel.send(read_request(2, kNode, 0, kPage));
    CHECK(!player.control.receive().empty());
}

TEST("an INTERRUPT goes up only when its request did and is not answered yet") {
    const Player player;
    const Bytes getattr = request(Opcode::getattr, 10, kNode);
    player.kernel.send(getattr);
    CHECK(player.control.receive() == getattr);
    player.kernel.send(interrupt_request(12));
    CHECK(player.control.silent());
    player.kernel.send(interrupt_request(10));
    CHECK(player.control.receive() == interrupt_request(10));
    player.control.send(reply(10 | abi::kInterruptBit, -EAGAIN));
    CHECK_EQ(header_of(player.kernel.receive()).error, -EAGAIN);
    player.control.send(reply(10, -EINTR));
    CHECK_EQ(header_of(player.kernel.receive()).error, -EINTR);
    player.kernel.send(interrupt_request(10));
    CHECK(player.control.silent());
}

TEST("malformed requests are neither served nor forwarded, and the next is served") {
    const File file(kFileSize);
    Player player;
    player.install(kNode, file);
    Bytes too_long = read_request(2, kNode, 0, kPage);
    too_long.push_back(0);
    for (const Bytes& bad : {Bytes{1}, Bytes(39), Bytes(40), too_long}) {
        player.kernel.send(bad);
    }
    CHECK(player.kernel.silent());
    CHECK(player.control.silent());
    CHECK(player.read(0, kPage) == expected(0, kPage));
}

TEST("a READ that is cut short is EINVAL") {
    const Player player;
    CHECK_EQ(header_of(player.ask(request(Opcode::read, 2, kNode, std::uint64_t{0}))).error,
             -EINVAL);
}

TEST("what control sends malformed or unexpected does not reach the kernel") {
    const Player player;
    Bytes too_long = reply(4, 0);
    too_long.push_back(0);
    for (const Bytes& bad : {Bytes{1}, Bytes(15), too_long, reply(4, 0), reply(5, -EAGAIN)}) {
        player.control.send(bad);
    }
    CHECK(player.kernel.silent());
}

TEST("a notification that control sends reaches the kernel") {
    const Player player;
    Bytes notification =
        reply(0, static_cast<int>(abi::kNotifyInvalInode), abi::NotifyInvalInode{kNode, 0, 0});
    player.control.send(notification);
    CHECK(player.kernel.receive() == notification);
}

TEST("requests that control has no room for wait, and come up in order") {
    const Player player;
    constexpr std::uint64_t kMany = 3000;
    const std::string name(2000, 'x');
    for (std::uint64_t i = 1; i <= kMany; ++i) {
        player.kernel.send(request(Opcode::lookup, 2 * i, 1, std::string_view(name)));
    }
    std::vector<bool> seen(kMany + 1);
    for (std::uint64_t i = 1; i <= kMany; ++i) {
        const auto header = structure_at<abi::InHeader>(player.control.receive(), 0);
        CHECK(header.unique >= 2 && header.unique <= 2 * kMany);
        CHECK(!seen[header.unique / 2]);
        seen[header.unique / 2] = true;
    }
    CHECK(player.control.silent());
}

TEST("a READ is served while control reads nothing at all") {
    const File file(kFileSize);
    Player player;
    player.install(kNode, file);
    for (std::uint64_t i = 1; i <= 2000; ++i) {
        player.kernel.send(request(Opcode::getattr, 2 * i, 1, std::string(4000, 'x')));
    }
    player.unique = 1'000'000;
    CHECK(player.read(0, kPage) == expected(0, kPage));
}

TEST("control that closes its end leaves no request unanswered and ends the connection") {
    Player player;
    player.kernel.send(request(Opcode::getattr, 10, kNode));
    player.control.receive();
    player.control.close();
    CHECK_EQ(header_of(player.kernel.receive()).error, -EIO);
    CHECK(player.over_within(5000));
    CHECK(player.path->state().ending.reason().find("control") != std::string::npos);
}

TEST("a kernel that closes its end is an unmount") {
    Player player;
    player.kernel.send(request(Opcode::getattr, 10, kNode));
    player.kernel.close();
    CHECK(player.over_within(5000));
    CHECK_EQ(player.path->state().ending.reason(), "unmounted");
    CHECK(player.path->stop());
}

TEST("a stop is bounded while upcalls are out, and may come twice") {
    const Player player;
    player.kernel.send(request(Opcode::getattr, 10, kNode));
    CHECK(!player.control.receive().empty());
    const auto before = std::chrono::steady_clock::now();
    CHECK(player.path->stop());
    player.path->stop();
    CHECK(std::chrono::steady_clock::now() - before < std::chrono::seconds(5));
}

TEST("an upcall that control never answers is EIO, and what a late reply grants is given back") {
    Config config;
    config.upcall_timeout = 1;
    const Player player(config);
    player.kernel.send(request(Opcode::lookup, 4, 1, std::string_view("a\0", 2)));
    player.control.receive();
    CHECK_EQ(header_of(player.kernel.receive(10'000)).error, -EIO);
    player.control.send(reply(4, 0, entry(7)));
    const auto forget = structure_at<abi::InHeader>(player.control.receive(), 0);
    CHECK_EQ(forget.opcode, static_cast<std::uint32_t>(Opcode::forget));
    CHECK_EQ(forget.nodeid, 7U);
    CHECK(player.kernel.silent());
}

// path, fault, and the client's result: 0 for all the bytes.
struct Fault {
    const char* path;
    const char* fault;
    int error;
};

TEST("whatever call fails while a READ is served, it is answered once, rightly") {
    const Fault faults[] = {
        {"pool", "preadv:EIO:count=1", -EIO},
        {"pool", "preadv:short:count=3", 0},
        {"splice", "splice_in:EIO:count=1", -EIO},
        {"splice", "splice_in:EINVAL:count=1", 0},
        {"splice", "splice_in:EAGAIN:count=1", 0},
        {"splice", "splice_in:short:count=3", 0},
        {"splice", "vmsplice:ENOMEM:count=1", 0},
        {"mmap", "vmsplice:EFAULT:count=1", 0},
        {"mmap", "vmsplice:EFAULT:after=1:count=1", 0},
        {"mmap", "vmsplice:short:after=1:count=1", 0},
        {"mmap", "mmap:ENOMEM:count=1", 0},
        {"mmap", "mmap:EPERM:count=1", 0},
        {"mmap", "mlock:ENOMEM", 0},
        {"mmap", "madvise:EFAULT", 0},
        {"mmap", "madvise:EINVAL", 0},
    };
    const File file(kFileSize);
    for (const auto& [path, fault, error] : faults) {
        Player player(by(path));
        player.install(kNode, file);
        // Only after its threads have made their pipes and buffers.
        CHECK(player.read(200'000, kPage) == expected(200'000, kPage));
        player.path->revoke(kNode);  // and its windows
        player.install(kNode, file);
        CHECK(sys::arm_faults(fault));
        const Bytes answer = player.ask(read_request(2, kNode, 100, 65'536));
        sys::arm_faults("");
        check_equal(header_of(answer).error, error, fault, __FILE__, __LINE__);
        CHECK(error != 0 || body_of(answer) == expected(100, 65'536));
        CHECK(player.kernel.silent());
        CHECK(player.read(0, 65'536) == expected(0, 65'536));
    }
}

TEST("without a pipe splice and mmap fall back to pool") {
    const File file(kFileSize);
    for (const char* path : {"splice", "mmap"}) {
        Player player(by(path), false);
        player.install(kNode, file);
        CHECK(sys::arm_faults("pipe:EMFILE"));
        player.path->start();
        CHECK(player.read(0, 65'536) == expected(0, 65'536));
        CHECK(within(std::chrono::seconds(2),
                     [&] { return player.sum(Path::pool, &PathCounts::requests) == 1; }));
        sys::arm_faults("");
    }
}

}  // namespace zc::test
