// READDIR and READDIRPLUS, by the backing filesystem's own cookies: an entry is listed once in a
// directory that changes, as natively. What getdents64 gave and did not fit into the reply is kept
// for the next one.
//
// A nodeid of 0 tells the kernel that an entry comes without attributes (fs/fuse/readdir.c): so do
// "." and "..", a name that cannot be looked at, another mount, what control keeps for itself, and
// all entries of a directory that was revoked while it was being listed.
#include <dirent.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>

#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

constexpr std::size_t kReadBytes = 32 << 10;
constexpr std::size_t kLargestReply = 1 << 20;

struct Entry {
    std::uint64_t ino = 0;
    std::uint64_t next = 0;
    unsigned char type = 0;
    std::string_view name;
    std::size_t bytes = 0;  // of the entry as the kernel gave it
};

bool is_dots(std::string_view name) noexcept {
    return name == "." || name == "..";
}

constexpr std::size_t aligned(std::size_t size) noexcept {
    return (size + 7) & ~std::size_t{7};
}

// Makes sure that the next entry from `cookie` is in the buffer. 0, or -errno; `end` at the end.
int fill(OpenDirectory& listing, std::uint64_t cookie) {
    if (listing.entries.empty()) {
        listing.entries.resize(kReadBytes);
    }
    if (cookie != listing.cookie || cookie == 0) {
        listing.begin = listing.end = 0;
        if (const int error = sys::seek_listing(listing.fd.get(), cookie); error < 0) {
            return error;
        }
        listing.cookie = cookie;
    }
    if (listing.begin < listing.end) {
        return 0;
    }
    const auto n = sys::list(listing.fd.get(), listing.entries.data(), listing.entries.size());
    if (n < 0) {
        return static_cast<int>(n);
    }
    listing.begin = 0;
    listing.end = static_cast<std::size_t>(n);
    return 0;
}

bool next_entry(const OpenDirectory& listing, Entry& into) {
    if (listing.begin >= listing.end) {
        return false;
    }
    const auto* raw = reinterpret_cast<const dirent64*>(listing.entries.data() + listing.begin);
    into = {raw->d_ino, static_cast<std::uint64_t>(raw->d_off), raw->d_type, raw->d_name,
            raw->d_reclen};
    return true;
}

// As control shows it, which answers for other mounts (tree/_mirror.py, mixed_ino).
std::uint64_t shown_ino(const LeaseRoot& root, const struct ::statx& status) noexcept {
    if (status.stx_dev_major == root.device_major && status.stx_dev_minor == root.device_minor) {
        return status.stx_ino;
    }
    const auto device = std::uint64_t{status.stx_dev_major} << 32 | status.stx_dev_minor;
    std::uint64_t value = device * 0x9E3779B97F4A7C15 + status.stx_ino;
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
    value = (value ^ value >> 27) * 0x94D049BB133111EB;
    value ^= value >> 31;
    return value != 0 ? value : 1;
}

class Listing {
  public:
    Listing(Context& context, const Request& request, bool plus, std::size_t size)
        : context_(context), request_(request), plus_(plus), size_(size) {
        context_.buffer.clear();
        leased_ = plus && context.mirrors().directory(request.header.nodeid, context.counts,
                                                      directory_) == 0;
    }

    // Puts an entry into the reply; false when it does not fit.
    bool add(const Entry& entry) {
        const auto fixed = sizeof(abi::Dirent) + (plus_ ? sizeof(abi::EntryOut) : 0);
        const auto bytes = aligned(fixed + entry.name.size());
        if (context_.buffer.size() + bytes > size_) {
            return false;
        }
        abi::EntryOut found{};
        auto ino = entry.ino;
        if (leased_ && !is_dots(entry.name) && !look(entry, found, ino)) {
            return true;  // vanished since, or never to be seen
        }
        auto& buffer = context_.buffer;
        auto at = buffer.size();
        buffer.resize(at + bytes);
        if (plus_) {
            std::memcpy(buffer.data() + at, &found, sizeof found);
            at += sizeof found;
        }
        const abi::Dirent dirent{ino, entry.next, static_cast<std::uint32_t>(entry.name.size()),
                                 entry.type};
        std::memcpy(buffer.data() + at, &dirent, sizeof dirent);
        std::memcpy(buffer.data() + at + sizeof dirent, entry.name.data(), entry.name.size());
        return true;
    }

    bool empty() const noexcept { return context_.buffer.empty(); }
    void reply() {
        if (!request_.answer(context_.buffer)) {
            for (const auto nodeid : counted_) {
                context_.mirrors().nodes().forget(nodeid, 1);
            }
        }
    }

  private:
    bool look(const Entry& entry, abi::EntryOut& into, std::uint64_t& ino) {
        auto& mirrors = context_.mirrors();
        if (mirrors.is_kept(*directory_->root, request_.header.nodeid, entry.name)) {
            return true;
        }
        struct ::statx status {};
        const int error = mirrors.look(*directory_, entry.name.data(), status);
        if (error == kHandUp) {
            ino = shown_ino(*directory_->root, status);
            return !mirrors.is_refused(status);
        }
        if (error != 0) {
            return error != -ENOENT;
        }
        const auto identity =
            mirrors.identity_of(*directory_->root, status, directory_->fd(), entry.name.data());
        auto& nodes = mirrors.nodes();
        if (nodes.any_revoked() && nodes.is_revoked(identity)) {
            return true;
        }
        const auto nodeid = nodes.count(identity, request_.header.nodeid, entry.name,
                                        status.stx_nlink > 1 && !S_ISDIR(status.stx_mode));
        counted_.push_back(nodeid);
        into = entry_of(nodeid, status, mirrors.cache_timeout_ms());
        return true;
    }

    Context& context_;
    const Request& request_;
    const bool plus_;
    const std::size_t size_;
    bool leased_ = false;
    std::shared_ptr<const Directory> directory_;
    std::vector<std::uint64_t> counted_;
};

bool list(Context& context, const Request& request, bool plus) {
    abi::ReadIn read{};
    if (!request.parse(read) || !is_own(read.fh)) {
        return false;
    }
    const auto opened = context.mirrors().listings().find(read.fh);
    if (!opened) {
        return request.failed(-EBADF);
    }
    const std::lock_guard guard(opened->lock);
    Listing listing(context, request, plus, std::min<std::size_t>(read.size, kLargestReply));
    auto cookie = read.offset;
    for (Entry entry;;) {
        const int error = fill(*opened, cookie);
        if (error < 0 && listing.empty()) {
            return request.failed(error);
        }
        if (error < 0 || !next_entry(*opened, entry) || !listing.add(entry)) {
            break;
        }
        opened->begin += entry.bytes;
        opened->cookie = cookie = entry.next;
    }
    listing.reply();
    return true;
}

}  // namespace

bool readdir(Context& context, const Request& request) {
    return list(context, request, false);
}

bool readdirplus(Context& context, const Request& request) {
    return list(context, request, true);
}

}  // namespace zc::ops
