#include "serve/sources/erofs_image.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <system_error>

#include "sys/syscalls.hpp"

namespace zc {

namespace {

static_assert(std::endian::native == std::endian::little, "structures are read as they lie");

constexpr std::uint64_t kSuperblockOffset = 1024;
constexpr std::uint32_t kMagic = 0xE0F5'E1E2;
constexpr unsigned kLeastBits = 9;
constexpr unsigned kMostBits = 12;
constexpr std::uint64_t kSlotBytes = 32;  // nids count these
constexpr std::uint64_t kLargest = std::numeric_limits<std::int64_t>::max();
constexpr std::uint32_t kSecond = 1'000'000'000;
constexpr std::uint64_t kLongestTarget = 4095;
constexpr std::size_t kLongestName = 255;
constexpr std::uint64_t kMostChunks = 1 << 20;

// Of Inode::layout.
constexpr std::uint32_t kFlatPlain = 0;
constexpr std::uint32_t kFlatInline = 2;
constexpr std::uint32_t kChunkBased = 4;

constexpr std::uint16_t kExtended = 1;
constexpr unsigned kLayoutShift = 1;
constexpr std::uint16_t kLayoutMask = 7;
constexpr std::uint32_t kChunkIndexes = 0x20;
constexpr std::uint32_t kChunkBits = 0x1F;
constexpr std::uint32_t kNoBlock = 0xFFFF'FFFF;

struct RawSuperblock {
    std::uint32_t magic;
    std::uint32_t checksum;
    std::uint32_t features;
    std::uint8_t block_bits;
    std::uint8_t slots;
    std::uint16_t root;
};
static_assert(sizeof(RawSuperblock) == 16);

struct RawInode {
    std::uint16_t format;
    std::uint16_t xattr_count;
    std::uint16_t mode;
    std::uint16_t reserved;
    std::uint64_t size;
    std::uint32_t number;
    std::uint32_t ino;
    std::uint32_t uid;
    std::uint32_t gid;
    std::int64_t mtime_s;
    std::uint32_t mtime_ns;
    std::uint32_t nlink;
    std::array<std::uint8_t, 16> padding;
};
static_assert(sizeof(RawInode) == 64);

struct [[gnu::packed]] RawEntry {
    std::uint64_t nid;
    std::uint16_t name;  // its offset in the block
    std::uint8_t type;
    std::uint8_t reserved;
};
static_assert(sizeof(RawEntry) == 12);

struct RawChunk {
    std::uint16_t reserved;
    std::uint16_t device;
    std::uint32_t block;
};
static_assert(sizeof(RawChunk) == 8);

struct [[gnu::packed]] RawPiece {
    std::int32_t device;
    std::uint64_t offset;
    std::uint64_t length;
};
static_assert(sizeof(RawPiece) == 20);

struct RawXattrHeader {
    std::uint32_t filter;
    std::uint8_t shared;
    std::array<std::uint8_t, 7> reserved;
};
static_assert(sizeof(RawXattrHeader) == 12);

struct RawXattr {
    std::uint8_t name_length;
    std::uint8_t prefix;
    std::uint16_t value_length;
};
static_assert(sizeof(RawXattr) == 4);
constexpr std::size_t kXattrUnit = 4;

// The names of extended attributes begin with one of these; others cannot be kept.
constexpr std::array<std::string_view, 7> kPrefixes = {
    "", "user.",    "system.posix_acl_access", "system.posix_acl_default", "trusted.",
    "", "security."};

// The image defines these itself (zcfuse/frozen/_layout.py).
constexpr std::uint8_t kFirstLongPrefix = 0x80;
constexpr std::array<std::string_view, 2> kLongPrefixes = {"trusted.overlay.metacopy",
                                                           "trusted.overlay.redirect"};

// Empty for an index that images do not have.
constexpr std::string_view prefix_of(std::uint8_t index) noexcept {
    if (index >= kFirstLongPrefix) {
        index -= kFirstLongPrefix;
        return index < kLongPrefixes.size() ? kLongPrefixes[index] : "";
    }
    return index < kPrefixes.size() ? kPrefixes[index] : "";
}

// overlayfs takes names that begin so for its own marks, and a name of the tree that begins so has
// another `overlay.` in it.
constexpr std::string_view kOverlay = "trusted.overlay.";
constexpr std::string_view kEscaped = "trusted.overlay.overlay.";
constexpr std::string_view kRedirect = "trusted.overlay.redirect";
// Where the pieces of a file begin in the table of pieces, and their number.
constexpr std::string_view kPieces = "trusted.zcfuse.pieces";
struct PiecesValue {
    std::uint64_t first;
    std::uint64_t count;
};

std::optional<std::string> shown(std::string_view name) {
    if (name.starts_with(kEscaped)) {
        return std::string(kOverlay) += name.substr(kEscaped.size());
    }
    if (name.starts_with(kOverlay) || name == kPieces) {
        return std::nullopt;
    }
    return std::string(name);
}

template <typename Record>
bool record_at(std::string_view bytes, std::size_t offset, Record& into) noexcept {
    if (offset > bytes.size() || bytes.size() - offset < sizeof into) {
        return false;
    }
    std::memcpy(&into, bytes.data() + offset, sizeof into);
    return true;
}

template <typename Record>
std::span<char> bytes_of(Record& record) noexcept {
    return {reinterpret_cast<char*>(&record), sizeof record};
}

constexpr std::uint64_t rounded_up(std::uint64_t value, std::uint64_t unit) noexcept {
    return value / unit * unit + (value % unit != 0 ? unit : 0);
}

}  // namespace

ErofsImage::ErofsImage(sys::UniqueFd file, About about)
    : file_(std::make_shared<const sys::UniqueFd>(std::move(file))), about_(std::move(about)) {
    int error = sys::file_size(file_->get(), size_);
    RawSuperblock superblock{};
    error = error != 0 ? error : read(kSuperblockOffset, bytes_of(superblock));
    if (error == 0) {
        const bool fits = superblock.magic == kMagic && superblock.block_bits >= kLeastBits &&
                          superblock.block_bits <= kMostBits;
        error = fits ? 0 : -EIO;
    }
    if (error != 0) {
        throw std::system_error(-error, std::generic_category(), "the superblock of an image");
    }
    bits_ = superblock.block_bits;
    root_ = superblock.root;
}

bool ErofsImage::holds(std::uint64_t offset, std::uint64_t length) const noexcept {
    return offset <= size_ && length <= size_ - offset;
}

int ErofsImage::read(std::uint64_t offset, std::span<char> into) const {
    if (!holds(offset, into.size())) {
        return -EIO;
    }
    while (!into.empty()) {
        const iovec rest{into.data(), into.size()};
        const auto n = sys::preadv(file_->get(), {&rest, 1}, offset);
        if (n <= 0) {
            return n < 0 ? static_cast<int>(n) : -EIO;
        }
        into = into.subspan(static_cast<std::size_t>(n));
        offset += static_cast<std::uint64_t>(n);
    }
    return 0;
}

int ErofsImage::read(std::uint64_t offset, std::size_t length, std::string& into) const {
    if (!holds(offset, length)) {
        return -EIO;  // before memory for it is taken
    }
    into.resize(length);
    return read(offset, std::span(into));
}

int ErofsImage::inode(std::uint64_t nid, Inode& into) const {
    if (nid > size_ / kSlotBytes) {
        return -EIO;
    }
    const auto at = nid * kSlotBytes;
    RawInode raw{};
    if (const int error = read(at, bytes_of(raw)); error != 0) {
        return error;
    }
    if ((raw.format & kExtended) == 0 || raw.size > kLargest || raw.mtime_ns >= kSecond) {
        return -EIO;
    }
    into = {};
    into.mode = raw.mode;
    into.nlink = raw.nlink;
    into.uid = raw.uid;
    into.gid = raw.gid;
    if (S_ISCHR(raw.mode) || S_ISBLK(raw.mode)) {
        // As the kernel's new_encode_dev() packs them.
        into.rdev_major = raw.number >> 8 & 0xFFF;
        into.rdev_minor = (raw.number & 0xFF) | (raw.number >> 12 & 0xF'FF00);
    }
    into.size = raw.size;
    into.mtime_s = raw.mtime_s;
    into.mtime_ns = raw.mtime_ns;
    into.nid = nid;
    into.layout = raw.format >> kLayoutShift & kLayoutMask;
    into.number = raw.number;
    into.xattrs = at + sizeof raw;
    if (raw.xattr_count != 0) {
        into.xattr_bytes = sizeof(RawXattrHeader) + (raw.xattr_count - std::size_t{1}) * kXattrUnit;
    }
    into.body = into.xattrs + into.xattr_bytes;
    return 0;
}

// Where the bytes lie that the image itself has of an inode.
int ErofsImage::ranges(const Inode& inode, std::vector<Range>& into) const {
    if (inode.layout != kFlatInline && inode.layout != kFlatPlain) {
        return -EIO;
    }
    const auto tail =
        inode.layout == kFlatInline ? inode.size & ((std::uint64_t{1} << bits_) - 1) : 0;
    into.clear();
    for (const auto& range : {Range{std::uint64_t{inode.number} << bits_, inode.size - tail},
                              Range{inode.body, tail}}) {
        if (range.second == 0) {
            continue;
        }
        if (!holds(range.first, range.second)) {
            return -EIO;
        }
        into.push_back(range);
    }
    return 0;
}

// The names of one block, which are sorted. Nothing is copied but the block.
class ErofsImage::Block {
  public:
    struct Name {
        std::string_view text;
        std::uint64_t nid = 0;
    };
    std::string bytes;

    std::size_t count() const noexcept { return count_; }
    // The block must hold at least one name.
    int check() {
        RawEntry first{};
        count_ = record_at(bytes, 0, first) ? first.name / sizeof first : 0;
        return count_ == 0 || count_ > bytes.size() / sizeof first ? -EIO : 0;
    }
    int name(std::size_t place, Name& into) const {
        RawEntry raw{};
        RawEntry following{};
        record_at(bytes, place * sizeof raw, raw);
        record_at(bytes, (place + 1) * sizeof raw, following);
        const std::size_t start = raw.name;
        std::size_t end = following.name;
        if (place + 1 == count_) {
            // The last name ends before the zeros at the end of the block.
            end = bytes.find_last_not_of('\0') + 1;
        }
        if (start < count_ * sizeof raw || start >= end || end > bytes.size() ||
            end - start > kLongestName) {
            return -EIO;
        }
        into = {std::string_view(bytes).substr(start, end - start), raw.nid};
        const bool odd = into.text.find_first_of(std::string_view("/\0", 2)) != into.text.npos;
        return odd ? -EIO : 0;
    }

  private:
    std::size_t count_ = 0;
};

std::uint64_t ErofsImage::blocks_of(const Inode& directory) const noexcept {
    return rounded_up(directory.size, std::uint64_t{1} << bits_) >> bits_;
}

int ErofsImage::block(const Inode& directory, std::uint64_t index, Block& into) const {
    if (!S_ISDIR(directory.mode)) {
        return -ENOTDIR;
    }
    std::vector<Range> parts;
    if (const int error = ranges(directory, parts); error != 0) {
        return error;
    }
    const auto block_bytes = std::uint64_t{1} << bits_;
    auto before = index << bits_;
    for (const auto& [offset, length] : parts) {
        if (before < length) {
            const int error =
                read(offset + before, std::min(block_bytes, length - before), into.bytes);
            return error != 0 ? error : into.check();
        }
        before -= length;
    }
    return -EIO;
}

int ErofsImage::lookup(const Inode& directory, std::string_view name, std::uint64_t& into) const {
    if (name.size() > kLongestName) {
        return -ENAMETOOLONG;
    }
    // The last block whose first name is not behind the wanted one, and then the name in it.
    Block names;
    Block::Name found;
    std::uint64_t block_at = 0;
    auto blocks = blocks_of(directory);
    while (blocks - block_at > 1) {
        const auto middle = block_at + (blocks - block_at) / 2;
        int error = block(directory, middle, names);
        error = error != 0 ? error : names.name(0, found);
        if (error != 0) {
            return error;
        }
        (found.text <= name ? block_at : blocks) = middle;
    }
    if (const int error = block(directory, block_at, names); error != 0) {
        return error;
    }
    std::size_t low = 0;
    auto high = names.count();
    while (low < high) {
        const auto middle = low + (high - low) / 2;
        if (const int error = names.name(middle, found); error != 0) {
            return error;
        }
        if (found.text == name) {
            into = found.nid;
            return 0;
        }
        (found.text < name ? low : high) = found.text < name ? middle + 1 : middle;
    }
    return -ENOENT;
}

int ErofsImage::entries(const Inode& directory, std::uint64_t position,
                        std::vector<Entry>& into) const {
    into.clear();
    Block names;
    auto from = position & ((std::uint64_t{1} << bits_) - 1);
    for (auto index = position >> bits_; index < blocks_of(directory) && into.empty(); ++index) {
        if (const int error = block(directory, index, names); error != 0) {
            return error;
        }
        for (; from < names.count(); ++from) {
            Block::Name found;
            if (const int error = names.name(from, found); error != 0) {
                return error;
            }
            into.push_back({std::string(found.text), found.nid, (index << bits_) + from + 1});
        }
        from = 0;
    }
    return 0;
}

int ErofsImage::target(const Inode& link, std::string& into) const {
    if (!S_ISLNK(link.mode)) {
        return -EINVAL;
    }
    std::vector<Range> parts;
    if (const int error = ranges(link, parts); error != 0) {
        return error;
    }
    if (link.size > kLongestTarget) {
        return -EIO;
    }
    into.clear();
    for (const auto& [offset, length] : parts) {
        std::string part;
        if (const int error = read(offset, length, part); error != 0) {
            return error;
        }
        into += part;
    }
    return 0;
}

int ErofsImage::all_xattrs(const Inode& inode, std::vector<Xattr>& into) const {
    into.clear();
    if (inode.xattr_bytes == 0) {
        return 0;
    }
    std::string bytes;
    RawXattrHeader header{};
    if (const int error = read(inode.xattrs, inode.xattr_bytes, bytes); error != 0) {
        return error;
    }
    if (!record_at(bytes, 0, header) || header.shared != 0) {
        return -EIO;
    }
    std::size_t at = sizeof header;
    while (at < bytes.size()) {
        RawXattr raw{};
        if (!record_at(bytes, at, raw)) {
            return -EIO;
        }
        const auto start = at + sizeof raw;
        const auto end = start + raw.name_length + raw.value_length;
        const auto prefix = prefix_of(raw.prefix);
        if (end > bytes.size() || prefix.empty()) {
            return -EIO;
        }
        auto name = std::string(prefix) + bytes.substr(start, raw.name_length);
        into.push_back({std::move(name), bytes.substr(start + raw.name_length, raw.value_length)});
        at = rounded_up(end, kXattrUnit);
    }
    return 0;
}

int ErofsImage::xattr(const Inode& inode, std::string_view name, std::string& into) const {
    std::vector<Xattr> all;
    if (const int error = all_xattrs(inode, all); error != 0) {
        return error;
    }
    for (auto& one : all) {
        if (shown(one.name) == name) {
            into = std::move(one.value);
            return 0;
        }
    }
    return -ENODATA;
}

int ErofsImage::xattr_names(const Inode& inode, std::vector<std::string>& into) const {
    std::vector<Xattr> all;
    const int error = all_xattrs(inode, all);
    into.clear();
    for (const auto& one : all) {
        if (auto name = shown(one.name)) {
            into.push_back(std::move(*name));
        }
    }
    return error;
}

int ErofsImage::place(const Inode& inode, Data& into) const {
    if (!S_ISREG(inode.mode)) {
        return S_ISDIR(inode.mode) ? -EISDIR : -EINVAL;
    }
    std::vector<Xattr> all;
    if (const int error = all_xattrs(inode, all); error != 0) {
        return error;
    }
    into = {};
    for (auto& one : all) {
        if (one.name == kRedirect) {
            into.redirect = std::move(one.value);
            return 0;
        }
        if (one.name == kPieces) {
            return listed(inode, one.value, into.pieces);
        }
    }
    if (inode.layout == kChunkBased) {
        return chunks(inode, into.pieces);
    }
    std::vector<Range> parts;
    if (const int error = ranges(inode, parts); error != 0) {
        return error;
    }
    for (const auto& [offset, length] : parts) {
        into.pieces.push_back({0, offset, length});
    }
    return 0;
}

int ErofsImage::chunks(const Inode& inode, std::vector<Run>& into) const {
    const auto bits = bits_ + (inode.number & kChunkBits);
    const auto chunk_bytes = std::uint64_t{1} << bits;
    const auto count = (inode.size >> bits) + ((inode.size & (chunk_bytes - 1)) != 0 ? 1 : 0);
    if ((inode.number & kChunkIndexes) == 0 || count > kMostChunks) {
        return -EIO;
    }
    std::string table;
    if (const int error =
            read(rounded_up(inode.body, sizeof(RawChunk)), count * sizeof(RawChunk), table);
        error != 0) {
        return error;
    }
    for (std::uint64_t i = 0; i < count; ++i) {
        RawChunk raw{};
        record_at(table, i * sizeof raw, raw);
        Run piece{kHole, 0, std::min(chunk_bytes, inode.size - (i << bits))};
        if (raw.block != kNoBlock) {
            piece.device = raw.device;
            piece.offset = std::uint64_t{raw.block} << bits_;
        }
        if (!fits(piece)) {
            return -EIO;
        }
        into.push_back(piece);
    }
    return 0;
}

int ErofsImage::listed(const Inode& inode, std::string_view place, std::vector<Run>& into) const {
    PiecesValue value{};
    const auto known = about_.pieces_bytes / sizeof(RawPiece);
    if (place.size() != sizeof value || !record_at(place, 0, value) || value.first > known ||
        value.count > known - value.first) {
        return -EIO;
    }
    std::string table;
    if (const int error = read(about_.pieces_offset + value.first * sizeof(RawPiece),
                               value.count * sizeof(RawPiece), table);
        error != 0) {
        return error;
    }
    auto left = inode.size;
    for (std::uint64_t i = 0; i < value.count; ++i) {
        RawPiece raw{};
        record_at(table, i * sizeof raw, raw);
        const Run piece{raw.device, raw.offset, raw.length};
        if (piece.length > left || !fits(piece)) {
            return -EIO;
        }
        left -= piece.length;
        into.push_back(piece);
    }
    return left == 0 ? 0 : -EIO;
}

bool ErofsImage::fits(const Run& piece) const noexcept {
    if (piece.device == kHole) {
        return true;
    }
    if (piece.device == 0) {
        return holds(piece.offset, piece.length);
    }
    const auto number = static_cast<std::size_t>(piece.device);
    if (piece.device < 0 || number > about_.device_sizes.size()) {
        return false;
    }
    const auto bytes = about_.device_sizes[number - 1];
    return piece.offset <= bytes && piece.length <= bytes - piece.offset;
}

}  // namespace zc
