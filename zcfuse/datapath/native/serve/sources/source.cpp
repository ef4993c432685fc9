#include "serve/sources/source.hpp"

namespace zc {

std::uint64_t mixed_ino(std::uint64_t device, std::uint64_t ino) noexcept {
    const std::uint64_t value = mixed(device * 0x9E3779B97F4A7C15 + ino);
    return value != 0 ? value : 1;
}

std::string_view kind_name(Source::Kind kind) noexcept {
    switch (kind) {
        case Source::Kind::directory:
            return "directory";
        case Source::Kind::overlay:
            return "overlay";
        case Source::Kind::index:
            return "index";
        case Source::Kind::filter:
            return "filter";
    }
    return "";
}

int has_entries(const SourceDirectory& directory, bool& into) {
    std::unique_ptr<Listing> names;
    std::vector<struct ::statx> versions;
    int error = directory.list(names, versions);
    error = error == 0 ? names->seek(0) : error;
    into = false;
    for (Listing::Entry entry; error == 0; names->skip()) {
        if (const int more = names->peek(entry); more <= 0) {
            return more;
        }
        if (entry.text() != "." && entry.text() != "..") {
            into = true;
            return 0;
        }
    }
    return error;
}

}  // namespace zc
