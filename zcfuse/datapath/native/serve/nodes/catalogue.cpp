#include "serve/nodes/catalogue.hpp"

#include <sys/stat.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "serve/nodes/mirrors.hpp"
#include "sys/files.hpp"

namespace zc {

namespace {

static_assert(std::endian::native == std::endian::little, "sections are read as they lie");

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::size_t kLongestName = 255;

using Kind = MemberKind;

struct RawEntry {
    std::uint64_t name;
    std::uint32_t node;
    std::uint16_t length;
    std::uint16_t padding;
};
static_assert(sizeof(RawEntry) == 16);

struct RawPiece {
    std::uint64_t logical;
    std::uint64_t offset;
    std::uint64_t length;
};
static_assert(sizeof(RawPiece) == 24);

template <typename Record>
bool record_at(const std::string& section, std::uint64_t number, Record& into) noexcept {
    if (number >= section.size() / sizeof into) {
        return false;
    }
    std::memcpy(&into, section.data() + number * sizeof into, sizeof into);
    return true;
}

bool text_at(const std::string& section, std::uint64_t offset, std::uint64_t length,
             std::string_view& into) noexcept {
    if (offset > section.size() || length > section.size() - offset) {
        return false;
    }
    into = std::string_view(section).substr(offset, length);
    return true;
}

Extent hole(std::uint64_t length) {
    return {hole_file(), next_file_id(), 0, length, true};
}

// Times that do not fit are the first or the last that does, as in the index.
std::int64_t nanoseconds(const statx_timestamp& time) noexcept {
    std::int64_t found = 0;
    if (__builtin_mul_overflow(time.tv_sec, kSecond, &found) ||
        __builtin_add_overflow(found, static_cast<std::int64_t>(time.tv_nsec), &found)) {
        using Limits = std::numeric_limits<std::int64_t>;
        return time.tv_sec < 0 ? Limits::min() : Limits::max();
    }
    return found;
}

}  // namespace

// The meaning of place, extent and detail depends on the kind; _format.py has the table.
struct Catalogue::Node {
    std::uint32_t mode;
    std::uint32_t uid;
    std::uint32_t gid;
    std::uint32_t nlink;
    std::int64_t mtime_ns;
    std::uint64_t size;
    std::uint64_t place;
    std::uint64_t extent;
    std::uint32_t detail;
    Kind kind;
    std::uint8_t padding[3];

    std::uint64_t stored() const noexcept {
        if (kind == Kind::file) {
            return size;
        }
        if (kind == Kind::sparse) {
            return detail * kSectorBytes;
        }
        return kind > Kind::symlink && kind <= Kind::lzma ? extent : 0;
    }
};

Catalogue::Catalogue(Sections sections, const Version& version, const Shown& shown,
                     sys::UniqueFd file)
    : sections_(std::move(sections)), version_(version), shown_(shown) {
    static_assert(sizeof(Node) == 56);
    if (file) {
        file_ = std::make_shared<const sys::UniqueFd>(std::move(file));
    }
    const auto nodes = sections_.nodes.size() / sizeof(Node);
    // A name is in one directory. An index that says otherwise is damaged, and would keep us here
    // for as many steps as it has nodes times names.
    auto left = sections_.entries.size() / sizeof(RawEntry);
    for (std::uint32_t number = 0; number < nodes && left > 0; ++number) {
        Names names;
        if (names_of(number, names) != 0 || names.count > left) {
            continue;
        }
        left -= names.count;
        for (std::uint64_t i = 0; i < names.count; ++i) {
            Entry found;
            Node child{};
            if (entry(names.first + i, found) == 0 && node(found.node, child) == 0 &&
                child.kind == Kind::directory) {
                above_[found.node] = number;
            }
        }
    }
}

int Catalogue::node(std::uint32_t number, Node& into) const {
    return record_at(sections_.nodes, number, into) ? 0 : kHandUp;
}

int Catalogue::names_of(std::uint32_t directory, Names& into) const {
    Node found{};
    if (const int error = node(directory, found); error != 0) {
        return error;
    }
    if (found.kind != Kind::directory) {
        return -ENOTDIR;
    }
    const auto entries = sections_.entries.size() / sizeof(RawEntry);
    if (found.place > entries || found.extent > entries - found.place) {
        return kHandUp;
    }
    into = {found.place, found.extent};
    return 0;
}

int Catalogue::entry(std::uint64_t number, Entry& into) const {
    RawEntry found{};
    if (!record_at(sections_.entries, number, found) ||
        !text_at(sections_.names, found.name, found.length, into.name)) {
        return kHandUp;
    }
    into.node = found.node;
    return 0;
}

int Catalogue::lookup(std::uint32_t directory, std::string_view name, std::uint32_t& into) const {
    Names names;
    if (const int error = names_of(directory, names); error != 0) {
        return error;
    }
    if (name.size() > kLongestName) {
        return -ENAMETOOLONG;
    }
    auto low = names.first;
    auto high = names.first + names.count;
    while (low < high) {
        const auto middle = low + (high - low) / 2;
        Entry found;
        if (const int error = entry(middle, found); error != 0) {
            return error;
        }
        const int order = found.name.compare(name);
        if (order == 0) {
            into = found.node;
            return 0;
        }
        (order < 0 ? low : high) = order < 0 ? middle + 1 : middle;
    }
    return -ENOENT;
}

int Catalogue::attributes(std::uint32_t number, abi::Attr& into) const {
    Node found{};
    if (const int error = node(number, found); error != 0) {
        return error;
    }
    const auto rest = found.mtime_ns % kSecond;
    const auto seconds = static_cast<std::uint64_t>(found.mtime_ns / kSecond - (rest < 0 ? 1 : 0));
    const auto part = static_cast<std::uint32_t>(rest < 0 ? rest + kSecond : rest);
    const auto sectors = found.stored() / kSectorBytes + (found.stored() % kSectorBytes != 0);
    into = {ino(number),
            found.size,
            sectors,
            seconds,
            seconds,
            seconds,
            part,
            part,
            part,
            found.mode,
            found.nlink,
            shown_.uid.value_or(found.uid),
            shown_.gid.value_or(found.gid),
            0,
            kBlockBytes,
            0};
    return 0;
}

int Catalogue::target(std::uint32_t number, std::string_view& into) const {
    Node found{};
    if (const int error = node(number, found); error != 0) {
        return error;
    }
    if (found.kind != Kind::symlink) {
        return -EINVAL;
    }
    return text_at(sections_.names, found.place, found.extent, into) ? 0 : kHandUp;
}

bool Catalogue::is_unchanged() const {
    struct ::statx status {};
    return file_ && sys::status_of(file_->get(), "", false, status) == 0 &&
           version_ == Version{status.stx_size, nanoseconds(status.stx_mtime),
                               nanoseconds(status.stx_ctime)};
}

bool Catalogue::is_stored(std::uint32_t number) const {
    Node found{};
    return node(number, found) == 0 && (found.kind == Kind::file || found.kind == Kind::sparse);
}

int Catalogue::extents(std::uint32_t number, std::vector<Extent>& into) const {
    Node found{};
    if (const int error = node(number, found); error != 0) {
        return error;
    }
    if (!file_) {
        return kHandUp;
    }
    if (found.kind == Kind::sparse) {
        return sparse(found, into);
    }
    if (found.kind != Kind::file) {
        return kHandUp;
    }
    return found.size == 0 || append(found.place, found.size, into) ? 0 : kHandUp;
}

bool Catalogue::append(std::uint64_t offset, std::uint64_t length,
                       std::vector<Extent>& into) const {
    if (offset > version_.size || length > version_.size - offset) {
        return false;
    }
    into.push_back({file_, file_id_, offset, length});
    return true;
}

int Catalogue::sparse(const Node& node, std::vector<Extent>& into) const {
    if (hole_file() == nullptr) {
        return kHandUp;
    }
    std::uint64_t done = 0;
    for (std::uint64_t i = 0; i < node.extent; ++i) {
        RawPiece piece{};
        if (!record_at(sections_.pieces, node.place + i, piece) || piece.logical < done ||
            piece.logical > node.size || piece.length > node.size - piece.logical) {
            return kHandUp;
        }
        if (piece.logical > done) {
            into.push_back(hole(piece.logical - done));
        }
        if (!append(piece.offset, piece.length, into)) {
            return kHandUp;
        }
        done = piece.logical + piece.length;
    }
    if (done < node.size) {
        into.push_back(hole(node.size - done));
    }
    return 0;
}

std::uint32_t Catalogue::above(std::uint32_t directory) const {
    const auto found = above_.find(directory);
    return found == above_.end() ? directory : found->second;
}

}  // namespace zc
