// Writes the fuzzer's seed corpus into a directory: one file per message or conversation, in the
// format of fuzz_format.hpp.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "fuzz_format.hpp"
#include "messages.hpp"
#include "serve/nodes/table.hpp"

namespace {

using namespace zc::test;
using zc::abi::Opcode;

struct Seed {
    std::string name;
    Bytes bytes;
};

Bytes conversation(const std::vector<std::pair<Step, Bytes>>& steps) {
    Bytes bytes;
    for (const auto& [step, message] : steps) {
        append_step(bytes, step, message);
    }
    return bytes;
}

zc::abi::EntryOut entry(std::uint64_t nodeid) {
    zc::abi::EntryOut out{};
    out.nodeid = nodeid;
    return out;
}

std::vector<Seed> reads() {
    std::vector<Seed> seeds;
    int number = 0;
    for (const std::uint64_t nodeid :
         {kWholeNode, kPiecesNode, kStrangerNode, kLeasedFile, kUnionFile}) {
        for (const std::uint64_t offset : {0UL, 4095UL, 99'999UL, 1UL << 40, ~0UL}) {
            for (const std::uint32_t size : {0U, 1U, 4096U, 65'536U, 1U << 20, ~0U}) {
                seeds.push_back(
                    {"read-" + std::to_string(number++),
                     conversation({{Step::from_kernel, read_request(2, nodeid, offset, size)}})});
            }
        }
    }
    return seeds;
}

std::vector<Seed> requests() {
    std::vector<Seed> seeds;
    for (std::uint32_t opcode = 0; opcode < 56; ++opcode) {
        const Bytes message =
            request(static_cast<Opcode>(opcode), 2, kWholeNode, std::uint64_t{2}, std::uint64_t{0},
                    std::uint64_t{4096}, std::uint64_t{0}, std::string_view("name\0", 5));
        seeds.push_back({"opcode-" + std::to_string(opcode),
                         conversation({{Step::from_kernel, message},
                                       {Step::from_control, reply(2, 0, entry(7), entry(8))},
                                       {Step::from_kernel, interrupt_request(2)}})});
    }
    return seeds;
}

std::vector<Seed> conversations() {
    const Bytes lookup = request(Opcode::lookup, 4, 1, std::string_view("a\0", 2));
    const Bytes open = request(Opcode::open, 6, kWholeNode, std::uint64_t{0});
    const Bytes list = request(Opcode::readdirplus, 8, 1, zc::abi::ReadIn{});
    const zc::abi::Dirent name{7, 1, 3, 8};
    zc::abi::ReadIn some{};
    some.size = 1024;
    const Bytes leased = request(Opcode::readdirplus, 10, kLeasedDirectory, some);
    const Bytes seek = request(Opcode::lseek, 12, kLeasedFile, std::uint64_t{0}, std::uint64_t{9},
                               std::uint32_t{3}, std::uint32_t{0});
    const Bytes part = read_request(14, kLeasedFile, 4096, 4096);
    const Bytes forget = request(Opcode::forget, 1, kLeasedFile, std::uint64_t{1});
    zc::abi::InitOut init{};
    init.major = 7;
    init.minor = 45;
    return {
        {"init", conversation({{Step::from_kernel, init_request(2)},
                               {Step::from_control, reply(2, 0, init)}})},
        {"lookup",
         conversation({{Step::from_kernel, lookup}, {Step::from_control, reply(4, 0, entry(7))}})},
        {"late", conversation({{Step::from_kernel, lookup},
                               {Step::expire, {}},
                               {Step::from_control, reply(4, 0, entry(7))}})},
        {"late-open", conversation({{Step::from_kernel, open},
                                    {Step::expire, {}},
                                    {Step::from_control, reply(6, 0, zc::abi::OpenOut{1, 2, 3})}})},
        {"open", conversation({{Step::from_kernel, open},
                               {Step::from_control, reply(6, 0, zc::abi::OpenOut{1, 2, 3})}})},
        {"unopened", conversation({{Step::from_kernel, leased},
                                   {Step::from_kernel, leased},
                                   {Step::from_kernel, part},
                                   {Step::from_kernel, seek},
                                   {Step::from_kernel, forget},
                                   {Step::from_kernel, part}})},
        {"enosys",
         conversation({{Step::from_kernel, lookup}, {Step::from_control, reply(4, -ENOSYS)}})},
        {"readdirplus",
         conversation({{Step::from_kernel, list},
                       {Step::from_control,
                        reply(8, 0, entry(7), name, std::string(8, 'x'), entry(8), name)}})},
        {"interrupt", conversation({{Step::from_kernel, lookup},
                                    {Step::from_kernel, interrupt_request(4)},
                                    {Step::from_control, reply(5, -EAGAIN)},
                                    {Step::from_control, reply(4, -EINTR)}})},
        {"notify",
         conversation({{Step::from_control, reply(0, 2, zc::abi::NotifyInvalInode{2, 0, 0})}})},
    };
}

Bytes name_in(std::uint64_t parent, std::string_view name) {
    return request(Opcode::lookup, 2, parent, name, std::string_view("\0", 1));
}

// All requests about a node, also after it was forgotten.
Bytes questions(std::uint64_t nodeid, std::uint64_t handle) {
    std::vector<std::pair<Step, Bytes>> steps;
    const auto ask = [&](Opcode opcode, std::uint64_t unique, const auto&... parts) {
        steps.emplace_back(Step::from_kernel, request(opcode, unique, nodeid, parts...));
    };
    for (const auto opcode : {Opcode::getattr, Opcode::opendir, Opcode::open, Opcode::statx,
                              Opcode::listxattr, Opcode::access, Opcode::statfs}) {
        ask(opcode, 4, zc::abi::ReadIn{});
    }
    ask(Opcode::readlink, 4);
    zc::abi::ReadIn list{};
    list.fh = handle;
    list.size = 4096;
    for (const std::uint64_t offset : {0UL, 3UL, 0UL, ~0UL}) {
        list.offset = offset;
        ask(Opcode::readdir, 6, list);
        ask(Opcode::readdirplus, 8, list);
    }
    steps.emplace_back(Step::from_kernel, read_request(10, nodeid, 4000, 65'536));
    ask(Opcode::release, 12, std::uint64_t{1} << 62, std::uint64_t{0}, std::uint64_t{0});
    ask(Opcode::forget, 1, std::uint64_t{1});
    ask(Opcode::readdir, 10, list);
    return conversation(steps);
}

// Names of every kind in a union and in an archive, and all requests about their nodes.
std::vector<Seed> trees() {
    std::vector<Seed> seeds;
    int number = 0;
    for (const std::uint64_t parent : {kUnionNode, kUnionDirectory, kArchiveNode}) {
        for (const char* name :
             {"file",   "gone",  "missing", ".wh.gone", ".wh..wh..opq", "merged", "below",
              "hidden", "empty", "top",     "bottom",   "opaque",       "marked", "metacopy",
              "file/",  "holes", "packed",  "soft",     "sub",          "torn",   "void"}) {
            seeds.push_back({"name-" + std::to_string(number++),
                             conversation({{Step::from_kernel, name_in(parent, name)}})});
        }
    }
    for (const std::uint64_t nodeid : {kUnionNode, kUnionDirectory, kUnionFile}) {
        seeds.push_back({"union-" + std::to_string(nodeid), questions(nodeid, 0)});
    }
    seeds.push_back({"archive", questions(kArchiveNode, zc::kOwnBit | 1)});
    for (std::uint64_t member = 0; member < kMembers; ++member) {
        seeds.push_back({"member-" + std::to_string(member),
                         questions(kFirstMember + member, zc::kOwnBit | 1)});
    }
    return seeds;
}

bool write(const std::filesystem::path& folder, const std::vector<Seed>& seeds) {
    for (const auto& [name, bytes] : seeds) {
        std::ofstream file(folder / name, std::ios::binary);
        file.write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
        if (!file.flush()) {
            return false;
        }
    }
    return true;
}

}  // namespace

int main(int count, char** words) {
    if (count != 2) {
        std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
        return 2;
    }
    const std::filesystem::path folder(words[1]);
    std::filesystem::create_directories(folder);
    const bool written = write(folder, reads()) && write(folder, requests()) &&
                         write(folder, conversations()) && write(folder, trees());
    return written ? 0 : 1;
}
