#include "serve/sources/member_index.hpp"

#include <sys/stat.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>

#include "serve/nodes/leased_nodes.hpp"
#include "sys/files.hpp"

namespace zc {

namespace {

static_assert(std::endian::native == std::endian::little, "sections are read as they lie");

constexpr std::int64_t kSecond = 1'000'000'000;

using Kind = MemberKind;

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

std::uint64_t NodeRecord::stored() const noexcept {
    if (kind == Kind::file) {
        return size;
    }
    if (kind == Kind::sparse || kind == Kind::streamed_sparse) {
        return detail * kSectorBytes;
    }
    return kind > Kind::symlink && kind <= Kind::streamed ? extent : 0;
}

std::uint64_t MemberIndex::number() const noexcept {
    const auto& sections = content_->sections;
    std::uint64_t number = mixed(shown_.first_ino ^ mixed(version_.size));
    for (const auto part :
         {static_cast<std::uint64_t>(version_.mtime_ns),
          static_cast<std::uint64_t>(version_.ctime_ns), std::hash<std::string>{}(sections.entries),
          std::hash<std::string>{}(sections.nodes), std::hash<std::string>{}(sections.pieces),
          std::hash<std::string>{}(sections.names)}) {
        number = mixed(number ^ part);
    }
    return number;
}

MemberIndex::MemberIndex(Sections sections, const Version& version, const Shown& shown,
                         sys::UniqueFd file)
    : version_(version), shown_(shown) {
    auto content = std::make_shared<Content>();
    content->sections = std::move(sections);
    content_ = content;
    find_parents(*content);
    if (file) {
        file_ = std::make_shared<const sys::UniqueFd>(std::move(file));
    }
}

MemberIndex::MemberIndex(const MemberIndex& other, const Shown& shown, sys::UniqueFd file)
    : content_(other.content_), version_(other.version_), shown_(shown) {
    if (file) {
        file_ = std::make_shared<const sys::UniqueFd>(std::move(file));
    }
}

void MemberIndex::find_parents(Content& content) const {
    const auto nodes = content.sections.nodes.size() / sizeof(NodeRecord);
    // A name is in one directory. An index that says otherwise is damaged, and would keep us here
    // for as many steps as it has nodes times names.
    auto left = names();
    for (std::uint32_t number = 0; number < nodes && left > 0; ++number) {
        Names names;
        if (names_of(number, names) != 0 || names.count > left) {
            continue;
        }
        left -= names.count;
        for (std::uint64_t i = 0; i < names.count; ++i) {
            Entry found;
            NodeRecord child{};
            if (entry(names.first + i, found) == 0 && node(found.node, child) == 0 &&
                child.kind == Kind::directory) {
                content.above[found.node] = number;
            }
        }
    }
}

int MemberIndex::node(std::uint32_t number, NodeRecord& into) const {
    return record_at(content_->sections.nodes, number, into) ? 0 : kUpcall;
}

int MemberIndex::names_of(std::uint32_t directory, Names& into) const {
    NodeRecord found{};
    if (const int error = node(directory, found); error != 0) {
        return error;
    }
    if (found.kind != Kind::directory) {
        return -ENOTDIR;
    }
    const auto entries = this->names();
    if (found.place > entries || found.extent > entries - found.place) {
        return kUpcall;
    }
    into = {found.place, found.extent};
    return 0;
}

int MemberIndex::entry(std::uint64_t number, Entry& into) const {
    EntryRecord found{};
    if (!record_at(content_->sections.entries, number, found) ||
        !text_at(content_->sections.names, found.name, found.length, into.name)) {
        return kUpcall;
    }
    into.node = found.node;
    return 0;
}

int MemberIndex::lookup(std::uint32_t directory, std::string_view name, std::uint32_t& into) const {
    Names names;
    if (const int error = names_of(directory, names); error != 0) {
        return error;
    }
    if (name.size() > kNameBytes) {
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

int MemberIndex::attributes(std::uint32_t number, abi::Attr& into) const {
    NodeRecord found{};
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

int MemberIndex::target(std::uint32_t number, std::string_view& into) const {
    NodeRecord found{};
    if (const int error = node(number, found); error != 0) {
        return error;
    }
    if (found.kind != Kind::symlink) {
        return -EINVAL;
    }
    return text_at(content_->sections.names, found.place, found.extent, into) ? 0 : kUpcall;
}

bool MemberIndex::is_unchanged() const {
    struct ::statx status {};
    return file_ && sys::status_of(file_->get(), "", false, status) == 0 &&
           version_ == Version{status.stx_size, nanoseconds(status.stx_mtime),
                               nanoseconds(status.stx_ctime)};
}

bool MemberIndex::is_stored(std::uint32_t number) const {
    NodeRecord found{};
    return node(number, found) == 0 && (found.kind == Kind::file || found.kind == Kind::sparse);
}

int MemberIndex::runs(std::uint32_t number, std::vector<Run>& into) const {
    NodeRecord found{};
    if (const int error = node(number, found); error != 0) {
        return error;
    }
    if (found.kind == Kind::sparse || found.kind == Kind::streamed_sparse) {
        return sparse(found, into);
    }
    if (found.kind != Kind::file) {
        return kUpcall;
    }
    return found.size == 0 || append(found.place, found.size, version_.size, into) ? 0 : kUpcall;
}

int MemberIndex::extents(std::uint32_t number, std::vector<Extent>& into) const {
    std::vector<Run> found;
    const int error = file_ && is_stored(number) ? runs(number, found) : kUpcall;
    if (error != 0) {
        return error;
    }
    for (const auto& run : found) {
        if (run.is_hole && hole_file() == nullptr) {
            return kUpcall;
        }
        into.push_back(run.is_hole ? hole(run.length)
                                   : Extent{file_, file_id_, run.offset, run.length});
    }
    return 0;
}

bool MemberIndex::append(std::uint64_t offset, std::uint64_t length, std::uint64_t end,
                         std::vector<Run>& into) {
    if (offset > end || length > end - offset) {
        return false;
    }
    into.push_back({offset, length, false});
    return true;
}

int MemberIndex::sparse(const NodeRecord& node, std::vector<Run>& into) const {
    // Only who decompresses the archive knows where that ends.
    const auto end = node.kind == Kind::sparse
                         ? version_.size
                         : std::uint64_t{std::numeric_limits<std::int64_t>::max()};
    std::uint64_t done = 0;
    for (std::uint64_t i = 0; i < node.extent; ++i) {
        PieceRecord piece{};
        if (!record_at(content_->sections.pieces, node.place + i, piece) || piece.logical < done ||
            piece.logical > node.size || piece.length > node.size - piece.logical) {
            return kUpcall;
        }
        if (piece.logical > done) {
            into.push_back({0, piece.logical - done, true});
        }
        if (!append(piece.offset, piece.length, end, into)) {
            return kUpcall;
        }
        done = piece.logical + piece.length;
    }
    if (done < node.size) {
        into.push_back({0, node.size - done, true});
    }
    return 0;
}

std::uint32_t MemberIndex::above(std::uint32_t directory) const {
    const auto found = content_->above.find(directory);
    return found == content_->above.end() ? directory : found->second;
}

}  // namespace zc
