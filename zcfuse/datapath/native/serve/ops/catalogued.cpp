// Answers requests for a leased catalogue, the members of an archive, from memory.
//
// Nothing in one changes by itself, and when control gives its lease up the kernel is told, so
// names and attributes are believed without limit. Listings are made from a position, so that one
// handle serves for all directories and closing it means nothing.
#include <cerrno>

#include "serve/nodes/catalogues.hpp"
#include "serve/open_reply.hpp"
#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

using Place = Catalogues::Place;

constexpr std::size_t kLargestReply = 1 << 20;
constexpr std::uint64_t kDots = 2;
constexpr std::uint32_t kTypeShift = 12;  // from a mode to d_type

constexpr std::size_t aligned(std::size_t size) noexcept {
    return (size + 7) & ~std::size_t{7};
}

// With a cache timeout of 0 the kernel may keep nothing.
Validity validity_of(const Context& context) noexcept {
    const auto given = context.mirrors().validity();
    const bool none = given.seconds == 0 && given.nanoseconds == 0;
    return none ? given : Validity{kUnlimitedSeconds, 0};
}

abi::EntryOut entry_of(std::uint64_t nodeid, const abi::Attr& attributes, Validity validity) {
    return {nodeid,
            0,
            validity.seconds,
            validity.seconds,
            validity.nanoseconds,
            validity.nanoseconds,
            attributes};
}

bool look_up(Context& context, const Request& request, const Place& place) {
    const char* name = request.name();
    if (name == nullptr || *name == '\0' || std::strchr(name, '/') != nullptr ||
        std::string_view(name) == "." || std::string_view(name) == "..") {
        return false;
    }
    const auto validity = validity_of(context);
    std::uint32_t node = 0;
    abi::Attr attributes{};
    int error = place.catalogue->lookup(place.node, name, node);
    if (error == 0) {
        error = place.catalogue->attributes(node, attributes);
    }
    if (error != 0 && error != -ENOENT) {
        return request.failed(error);
    }
    // A missing name is a reply too, which the kernel keeps.
    const auto nodeid = error == 0 ? place.nodeid_of(node) : 0;
    request.answer_with(entry_of(nodeid, attributes, validity));
    return true;
}

bool get_attributes(Context& context, const Request& request, const Place& place) {
    const auto validity = validity_of(context);
    abi::AttrOut out{validity.seconds, validity.nanoseconds, 0, {}};
    if (const int error = place.catalogue->attributes(place.node, out.attr); error != 0) {
        return request.failed(error);
    }
    if (static_cast<abi::Opcode>(request.header.opcode) == abi::Opcode::statx) {
        request.answer_with(statx_of(out));
    } else {
        request.answer_with(out);
    }
    return true;
}

bool read_link(const Request& request, const Place& place) {
    std::string_view target;
    if (const int error = place.catalogue->target(place.node, target); error != 0) {
        return request.failed(error);
    }
    request.answer(std::as_bytes(std::span(target.data(), target.size())));
    return true;
}

bool open_member(Context& context, const Request& request, const Place& place) {
    abi::OpenIn open{};
    if (!request.parse(open)) {
        return false;
    }
    if ((open.flags & O_ACCMODE) != O_RDONLY || (open.flags & O_TRUNC) != 0) {
        return request.failed(-EROFS);
    }
    OpenFiles::Lease lease;
    if (const int error = lease_member(context, place, lease); error != 0) {
        return request.failed(error);
    }
    auto& files = context.mirrors().files();
    const auto nodeid = request.header.nodeid;
    lease = files.open_with(nodeid, std::move(lease), OpenFiles::Keep::yes);
    context.state.ledger.opened("cached", kMadeOfExtents);
    abi::OpenOut out{kOwnBit, abi::fopen::keep_cache, 0};
    answer_by(lease.get(), out);
    if (!request.answer_with(out)) {
        files.release(nodeid, sys::coarse_milliseconds());
    }
    return true;
}

bool open_directory(Context& context, const Request& request, const Place& place) {
    Catalogue::Names names;
    if (const int error = place.catalogue->names_of(place.node, names); error != 0) {
        return request.failed(error);
    }
    const auto caching = validity_of(context).seconds != 0
                             ? abi::fopen::cache_dir | abi::fopen::keep_cache
                             : std::uint32_t{0};
    request.answer_with(abi::OpenOut{kCatalogueHandle, caching, 0});
    return true;
}

class Listing {
  public:
    Listing(Context& context, const Place& place, const Catalogue::Names& names, bool plus,
            std::size_t size)
        : place_(place),
          names_(names),
          buffer_(context.buffer),
          validity_(validity_of(context)),
          plus_(plus),
          size_(size) {
        buffer_.clear();
    }

    // Puts the entry behind a position into the reply; 0, kHandUp for one that cannot be had, or
    // -ENOSPC where it does not fit, or the names have ended.
    int add(std::uint64_t position) {
        Catalogue::Entry entry{position == 0 ? "." : "..", place_.node};
        if (position == 1) {
            entry.node = place_.catalogue->above(place_.node);
        }
        const bool is_name = position >= kDots;
        if (is_name && position - kDots >= names_.count) {
            return -ENOSPC;
        }
        if (is_name) {
            if (const int error = place_.catalogue->entry(names_.first + position - kDots, entry);
                error != 0) {
                return error;
            }
        }
        abi::Attr attributes{};
        const int error = place_.catalogue->attributes(entry.node, attributes);
        return error != 0 ? error : put(entry, position, attributes, is_name);
    }

  private:
    int put(const Catalogue::Entry& entry, std::uint64_t position, const abi::Attr& attributes,
            bool is_name) {
        const auto fixed = sizeof(abi::Dirent) + (plus_ ? sizeof(abi::EntryOut) : 0);
        auto at = buffer_.size();
        if (at + aligned(fixed + entry.name.size()) > size_) {
            return -ENOSPC;
        }
        buffer_.resize(at + aligned(fixed + entry.name.size()));
        if (plus_) {
            // Without a nodeid it comes without attributes: ".", ".." and revoked nodes.
            abi::EntryOut found{};
            if (is_name && !place_.revoked) {
                found = entry_of(place_.nodeid_of(entry.node), attributes, validity_);
            }
            std::memcpy(buffer_.data() + at, &found, sizeof found);
            at += sizeof found;
        }
        const abi::Dirent dirent{attributes.ino, position + 1,
                                 static_cast<std::uint32_t>(entry.name.size()),
                                 attributes.mode >> kTypeShift};
        std::memcpy(buffer_.data() + at, &dirent, sizeof dirent);
        std::memcpy(buffer_.data() + at + sizeof dirent, entry.name.data(), entry.name.size());
        return 0;
    }

    const Place& place_;
    const Catalogue::Names names_;
    std::vector<std::byte>& buffer_;
    const Validity validity_;
    const bool plus_;
    const std::size_t size_;
};

bool list(Context& context, const Request& request, const Place& place) {
    abi::ReadIn read{};
    const bool plus = static_cast<abi::Opcode>(request.header.opcode) == abi::Opcode::readdirplus;
    if (!request.parse(read)) {
        return false;
    }
    const bool unopened = read.fh == 0 && context.state.config.immutable && !place.revoked;
    if (read.fh != kCatalogueHandle && !unopened) {
        return false;
    }
    Catalogue::Names names;
    if (const int error = place.catalogue->names_of(place.node, names); error != 0) {
        return request.failed(error);
    }
    Listing listing(context, place, names, plus, std::min<std::size_t>(read.size, kLargestReply));
    int error = 0;
    auto position = read.offset;
    while (position < names.count + kDots && error == 0) {
        error = listing.add(position++);
    }
    if (error != 0 && error != -ENOSPC && context.buffer.empty()) {
        return request.failed(error == kHandUp ? -EIO : error);
    }
    request.answer(context.buffer);
    return true;
}

// An archive has no extended attributes.
bool list_attributes(const Request& request) {
    abi::GetxattrIn wanted{};
    if (!request.parse(wanted)) {
        return false;
    }
    static_cast<void>(wanted.size == 0 ? request.answer_with(abi::GetxattrOut{}) : request.done());
    return true;
}

}  // namespace

int lease_member(Context& context, const Place& place, OpenFiles::Lease& into) {
    if (!place.catalogue->is_unchanged()) {
        return kHandUp;  // control says what has become of it
    }
    auto& state = context.state;
    // A packed member goes up even while control has it open: control counts who uses its memory.
    if (!place.catalogue->is_stored(place.node)) {
        return kHandUp;
    }
    if ((into = state.mirrors.files().find(place.nodeid_of(place.node)))) {
        context.counts.backing_hits.add();
        return 0;
    }
    std::vector<Extent> extents;
    if (const int error = place.catalogue->extents(place.node, extents); error != 0) {
        return error;
    }
    into = std::make_shared<const FileLease>(std::move(extents), nullptr, state.windows);
    return 0;
}

bool catalogued(Context& context, const Request& request, const Place& place) {
    using abi::Opcode;
    const auto opcode = static_cast<Opcode>(request.header.opcode);
    if (opcode == Opcode::readdir || opcode == Opcode::readdirplus) {
        return list(context, request, place);  // to its end also where it was revoked meanwhile
    }
    if (place.revoked) {
        return false;
    }
    switch (opcode) {
        case Opcode::lookup:
            return look_up(context, request, place);
        case Opcode::getattr:
        case Opcode::statx:
            return get_attributes(context, request, place);
        case Opcode::readlink:
            return read_link(request, place);
        case Opcode::open:
            return open_member(context, request, place);
        case Opcode::opendir:
            return open_directory(context, request, place);
        case Opcode::getxattr:
            return request.failed(-ENODATA);
        case Opcode::listxattr:
            return list_attributes(request);
        default:
            return false;
    }
}

}  // namespace zc::ops
