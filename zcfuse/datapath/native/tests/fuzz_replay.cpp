// Runs the fuzzer's code once over each file of a corpus, for compilers without libFuzzer and for
// findings kept as tests.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int count, char** words) {
    int run = 0;
    for (int i = 1; i < count; ++i) {
        for (const auto& item : std::filesystem::directory_iterator(words[i])) {
            std::ifstream file(item.path(), std::ios::binary);
            const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
            LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()),
                                   bytes.size());
            ++run;
        }
    }
    std::printf("%d inputs\n", run);
    return run > 0 ? 0 : 1;
}
