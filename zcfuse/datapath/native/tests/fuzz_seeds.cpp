// Writes the fuzzer's seed corpus into the directory that is named: one file a message or a
// conversation, in the form that fuzz.cpp describes.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "fuzz_format.hpp"
#include "messages.hpp"

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
    for (const std::uint64_t nodeid : {kWholeNode, kPiecesNode, kStrangerNode, kLeasedFile}) {
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
    const bool written =
        write(folder, reads()) && write(folder, requests()) && write(folder, conversations());
    return written ? 0 : 1;
}
