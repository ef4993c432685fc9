// READDIR and READDIRPLUS, by the backing filesystem's own cookies: an entry is listed once in a
// directory that changes, as natively. What getdents64 gave and did not fit into the reply is kept
// for the next one. What several layers have is read as a whole, so that no name comes twice.
//
// A nodeid of 0 tells the kernel that an entry comes without attributes (fs/fuse/readdir.c): so do
// "." and "..", a name that cannot be looked at, another mount, what control keeps for itself, and
// all entries of a directory that was revoked while it was being listed.
#include <dirent.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <string>
#include <unordered_set>

#include "serve/sources/layer_marks.hpp"
#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

constexpr std::size_t kReadBytes = 32 << 10;
constexpr std::size_t kLargestReply = 1 << 20;
constexpr std::size_t kReservedBytes = 4;  // ".wh."

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

bool is_whiteout(const Part& part, const Entry& entry) {
    struct ::statx status {};
    return (entry.type == DT_CHR || entry.type == DT_UNKNOWN) &&
           sys::status_of(part.own.get(), entry.name.data(), true, status) == 0 &&
           is_device_whiteout(status);
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

// Which names a pass over several layers has, and which the layers above have taken away.
class MergedNames {
  public:
    void add(const Part& part, const Entry& entry, OpenDirectory& into) {
        const std::string name(entry.name);
        if (is_reserved(name)) {
            covered_.insert(name.substr(kReservedBytes));
            return;
        }
        if (!taken_.insert(name).second || is_whiteout(part, entry)) {
            return;
        }
        const auto start = into.entries.size();
        const auto* raw =
            reinterpret_cast<const std::byte*>(entry.name.data()) - offsetof(dirent64, d_name);
        into.entries.insert(into.entries.end(), raw, raw + entry.bytes);
        into.starts.push_back(start);
        reinterpret_cast<dirent64*>(into.entries.data() + start)->d_off =
            static_cast<off64_t>(into.starts.size());
    }
    // A `.wh.` name speaks of the layers below its own.
    void end_of_layer() { taken_.merge(covered_); }

  private:
    std::unordered_set<std::string> taken_;
    std::unordered_set<std::string> covered_;
};

int merge_part(const Part& part, MergedNames& names, OpenDirectory& into) {
    const int directory = part.own.get();
    OpenDirectory read;
    read.entries.resize(kReadBytes);
    if (const int error = sys::seek_listing(directory, 0); error < 0) {
        return error;
    }
    for (;;) {
        const auto n = sys::list(directory, read.entries.data(), read.entries.size());
        if (n <= 0) {
            return static_cast<int>(n);
        }
        read.begin = 0;
        read.end = static_cast<std::size_t>(n);
        for (Entry entry; next_entry(read, entry); read.begin += entry.bytes) {
            names.add(part, entry, into);
        }
    }
}

// Reads all parts of a merged directory, each name from the topmost that has it.
int merge(OpenDirectory& listing) {
    listing.starts.clear();
    listing.entries.clear();
    MergedNames names;
    for (const auto& part : listing.parts) {
        if (const int error = merge_part(part, names, listing); error < 0) {
            listing.starts.clear();
            return error;
        }
        names.end_of_layer();
    }
    return 0;
}

// Makes sure that the next entry from `cookie` is in the buffer. 0, or -errno; `end` at the end.
int fill_merged(OpenDirectory& listing, std::uint64_t cookie) {
    if (cookie == 0 || listing.starts.empty()) {
        if (const int error = merge(listing); error < 0) {
            return error;
        }
    }
    listing.end = listing.entries.size();
    listing.begin = cookie < listing.starts.size() ? listing.starts[cookie] : listing.end;
    listing.cookie = cookie;
    return 0;
}

int fill(OpenDirectory& listing, std::uint64_t cookie) {
    if (listing.parts.size() > 1) {
        return fill_merged(listing, cookie);
    }
    const int directory = listing.parts.front().own.get();
    if (listing.entries.empty()) {
        listing.entries.resize(kReadBytes);
    }
    if (cookie != listing.cookie || cookie == 0) {
        listing.begin = listing.end = 0;
        if (const int error = sys::seek_listing(directory, cookie); error < 0) {
            return error;
        }
        listing.cookie = cookie;
    }
    if (listing.begin < listing.end) {
        return 0;
    }
    const auto n = sys::list(directory, listing.entries.data(), listing.entries.size());
    if (n < 0) {
        return static_cast<int>(n);
    }
    listing.begin = 0;
    listing.end = static_cast<std::size_t>(n);
    return 0;
}

class Listing {
  public:
    Listing(Context& context, const Request& request, const OpenDirectory& opened, bool plus,
            std::size_t size)
        : context_(context), request_(request), opened_(opened), plus_(plus), size_(size) {
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
        const bool is_name = !is_dots(entry.name);
        if (is_name && (is_hidden(entry) || (leased_ && !look(entry, found, ino)))) {
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
    // A whiteout, whether or not the directory is still leased. Of what is merged, merge() has
    // none.
    bool is_hidden(const Entry& entry) const {
        if (!opened_.in_union || opened_.parts.size() > 1) {
            return false;
        }
        return is_reserved(entry.name) || is_whiteout(opened_.parts.front(), entry);
    }

    bool look(const Entry& entry, abi::EntryOut& into, std::uint64_t& ino) {
        auto& mirrors = context_.mirrors();
        if (mirrors.is_kept(*directory_->root, request_.header.nodeid, entry.name)) {
            return true;
        }
        Mirrors::Found found;
        const int error = mirrors.find(*directory_, entry.name.data(), found);
        if (error == kHandUp) {
            ino = Mirrors::shown_ino(*directory_->root, found.status);
            return !mirrors.is_refused(found.status);
        }
        if (error != 0) {
            return error != -ENOENT;
        }
        auto& nodes = mirrors.nodes();
        if (nodes.any_revoked() && nodes.is_revoked(found.identity)) {
            return true;
        }
        const auto& status = found.status;
        const auto nodeid = nodes.count(found.identity, request_.header.nodeid, entry.name,
                                        status.stx_nlink > 1 && !S_ISDIR(status.stx_mode));
        counted_.push_back(nodeid);
        into = entry_of(nodeid, status, mirrors.validity());
        ino = status.stx_ino;
        return true;
    }

    Context& context_;
    const Request& request_;
    const OpenDirectory& opened_;
    const bool plus_;
    const std::size_t size_;
    bool leased_ = false;
    std::shared_ptr<const Directory> directory_;
    std::vector<std::uint64_t> counted_;
};

// The listing of a directory that was opened without a message, where it stood after the last
// reply, or a new one.
int resume(Context& context, std::uint64_t nodeid, std::uint64_t cookie,
           std::shared_ptr<OpenDirectory>& into) {
    if ((into = context.mirrors().parked().take(nodeid, cookie))) {
        return 0;
    }
    into = std::make_shared<OpenDirectory>();
    std::vector<struct ::statx> statuses;
    return open_for_listing(context, nodeid, *into, statuses);
}

int find(Context& context, const Request& request, const abi::ReadIn& read,
         std::shared_ptr<OpenDirectory>& into) {
    if (read.fh == 0 && context.state.config.immutable) {
        return resume(context, request.header.nodeid, read.offset, into);
    }
    if (!is_own(read.fh)) {
        return kHandUp;
    }
    into = context.mirrors().listings().find(read.fh);
    return into ? 0 : -EBADF;
}

bool list(Context& context, const Request& request, bool plus) {
    abi::ReadIn read{};
    if (!request.parse(read)) {
        return false;
    }
    std::shared_ptr<OpenDirectory> opened;
    if (const int error = find(context, request, read, opened); error != 0) {
        return request.failed(error);
    }
    const std::lock_guard guard(opened->lock);
    Listing listing(context, request, *opened, plus,
                    std::min<std::size_t>(read.size, kLargestReply));
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
    if (read.fh == 0 && !listing.empty()) {
        // Before the reply, behind which the next request may come.
        context.mirrors().parked().put(request.header.nodeid, opened, sys::coarse_milliseconds());
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
