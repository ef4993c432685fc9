// READDIR and READDIRPLUS: the entries of a source's listing, each with its attributes. The listing
// keeps its position for the next request.
//
// A nodeid of 0 marks an entry without attributes (fs/fuse/readdir.c): ".", "..", a name that
// cannot be looked at, another mount, a name that control keeps, and all entries of a directory
// that was revoked while it was being listed.
#include <algorithm>
#include <cerrno>
#include <cstddef>

#include "serve/ops/operation.hpp"

namespace zc::ops {

namespace {

constexpr std::size_t kLargestReply = 1 << 20;

bool is_dots(std::string_view name) noexcept {
    return name == "." || name == "..";
}

constexpr std::size_t aligned(std::size_t size) noexcept {
    return (size + 7) & ~std::size_t{7};
}

// The reply to one request.
class Reply {
  public:
    Reply(Context& context, const Request& request, Listing& names, bool plus, std::size_t size)
        : context_(context), request_(request), names_(names), plus_(plus), size_(size) {
        context_.buffer.clear();
        const auto& header = request.header;
        leased_ = plus && context.leased_nodes().directory_for(header.nodeid, header.uid,
                                                               context.counts, directory_) == 0;
        names_watched_ = leased_ && watches_names(context, directory_);
    }

    // Puts the entry at hand into it; false when it does not fit.
    bool add(const Listing::Entry& entry) {
        const auto fixed = sizeof(abi::Dirent) + (plus_ ? sizeof(abi::EntryOut) : 0);
        const auto bytes = aligned(fixed + entry.length);
        if (context_.buffer.size() + bytes > size_) {
            return false;
        }
        abi::EntryOut found{};
        auto ino = entry.ino;
        if (!is_dots(entry.text()) && leased_ && !look(entry, found, ino)) {
            return true;  // vanished since, or never to be seen
        }
        auto& buffer = context_.buffer;
        auto at = buffer.size();
        buffer.resize(at + bytes);
        if (plus_) {
            std::memcpy(buffer.data() + at, &found, sizeof found);
            at += sizeof found;
        }
        const abi::Dirent dirent{ino, entry.next, static_cast<std::uint32_t>(entry.length),
                                 entry.type};
        std::memcpy(buffer.data() + at, &dirent, sizeof dirent);
        std::memcpy(buffer.data() + at + sizeof dirent, entry.name, entry.length);
        return true;
    }

    bool empty() const noexcept { return context_.buffer.empty(); }
    void send() {
        if (!request_.answer(context_.buffer)) {
            for (const auto nodeid : counted_) {
                context_.leased_nodes().nodes().forget(nodeid, 1);
            }
        }
    }

  private:
    // An index knows its entries without a search for the name.
    int find(const Listing::Entry& entry, Found& into) {
        if (names_.found(into)) {
            into.identity.lease += directory_->root->number;
            return 0;
        }
        return context_.leased_nodes().find(*directory_, entry.name, into);
    }

    bool look(const Listing::Entry& entry, abi::EntryOut& into, std::uint64_t& ino) {
        auto& leased_nodes = context_.leased_nodes();
        const auto& source = *directory_->root->source;
        if (leased_nodes.is_kept(*directory_->root, request_.header.nodeid, entry.text())) {
            return true;
        }
        Found found;
        const auto what = [&](Found& one) { return find(entry, one); };
        const int error =
            count_lookup(context_, *directory_, entry.text(), names_watched_, what, found, into);
        if (error == kUpcall) {
            ino = source.shown_ino(found.status);
            return !leased_nodes.is_refused(found.status);
        }
        if (error != 0) {
            return error != -ENOENT;
        }
        counted_.push_back(into.nodeid);
        ino = found.status.stx_ino;
        return true;
    }

    Context& context_;
    const Request& request_;
    Listing& names_;
    const bool plus_;
    const std::size_t size_;
    bool leased_ = false;
    bool names_watched_ = false;
    std::shared_ptr<const Directory> directory_;
    std::vector<std::uint64_t> counted_;
};

// The listing of a directory that was opened without a message, where it stood after the last
// reply, or a new one.
int resume(Context& context, const abi::InHeader& header, std::uint64_t position,
           std::shared_ptr<OpenDirectory>& into) {
    into = context.leased_nodes().parked().take(header.nodeid, position);
    if (into && into->name_changes == context.leased_nodes().name_changes()) {
        return 0;
    }
    into = std::make_shared<OpenDirectory>();
    std::vector<struct ::statx> versions;
    auto freshness = Freshness::timed;
    return open_listing(context, header, *into, versions, freshness);
}

int find(Context& context, const Request& request, const abi::ReadIn& read,
         std::shared_ptr<OpenDirectory>& into) {
    if (read.fh == 0 && context.state.negotiation.silent_opens()) {
        return resume(context, request.header, read.offset, into);
    }
    if (!is_own(read.fh)) {
        return kUpcall;
    }
    auto& listings = context.leased_nodes().listings();
    into = listings.find(read.fh);
    listings.used(read.fh);
    return into ? 0 : -EBADF;
}

// Opens a listing again that had to be closed, or that cannot begin a second pass. A rewind of a
// listing opened at a later position also opens it again: on ext4 a descriptor whose first
// getdents64 found the end lists nothing after a seek to 0. Names that changed since the listing
// was opened must show from the start on, because the kernel may keep what it reads.
int reopen(Context& context, const abi::InHeader& header, const abi::ReadIn& read,
           OpenDirectory& opened) {
    const bool is_old = opened.name_changes != context.leased_nodes().name_changes();
    const bool rewinds = read.offset == 0 && opened.listing &&
                         (opened.reopened || is_old || !opened.listing->can_rewind());
    if (opened.listing && !rewinds) {
        return 0;
    }
    OpenDirectory fresh;
    std::vector<struct ::statx> versions;
    auto freshness = Freshness::timed;
    if (const int error = open_listing(context, header, fresh, versions, freshness); error != 0) {
        return error == kUpcall ? -ESTALE : error;
    }
    opened.listing = std::move(fresh.listing);
    opened.name_changes = fresh.name_changes;
    opened.reopened = read.offset != 0;
    return 0;
}

// Leaves the request to a thread for listings.
bool list_elsewhere(Context& context, const Request& request) {
    auto& queue = context.state.listings;
    const auto uid = request.header.uid;
    if (uid != 0 && context.state.config.shared &&
        queue.holds_too_long(*request.channel, uid, most_calls(context.state.config),
                             kCallHoldsLong)) {
        context.counts.because(Reason::listing_refused);
        return request.failed(-EAGAIN);
    }
    context.counts.because(Reason::listing_elsewhere);
    context.elsewhere = true;
    queue.push(call_job(request.channel, request.header, request.body, context.received));
    return true;
}

int gather(const Context& context, Listing& names, std::uint32_t uid) {
    if (context.lists == Context::Lists::none) {
        return Listing::kTooLong;
    }
    const bool all = context.lists == Context::Lists::all;
    return names.gather(all ? Listing::Effort::all : Listing::Effort::little, uid);
}

// Keeps the listing of a directory that was opened without a message for the next request. The
// caller has released the listing's lock.
void park(Context& context, const Request& request, const abi::ReadIn& read,
          const std::shared_ptr<OpenDirectory>& opened) {
    if (read.fh == 0) {
        context.leased_nodes().parked().put(request.header.nodeid, opened,
                                            sys::coarse_milliseconds());
    }
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
    std::unique_lock guard(opened->lock, std::defer_lock);
    if (context.lists == Context::Lists::all) {
        guard.lock();
    } else if (!guard.try_lock()) {
        return list_elsewhere(context, request);  // such a thread may have the lock
    }
    if (const int error = reopen(context, request.header, read, *opened); error != 0) {
        return request.failed(error);
    }
    auto& names = *opened->listing;
    if (names.must_gather(read.offset)) {
        const int error = gather(context, names, request.header.uid);
        if (error == Listing::kTooLong) {
            guard.unlock();
            park(context, request, read, opened);
            return list_elsewhere(context, request);
        }
        if (error != 0) {
            if (error == -ENOMEM) {
                context.counts.because(Reason::snapshots_refused);
            }
            return request.failed(error);
        }
    }
    Reply reply(context, request, names, plus, std::min<std::size_t>(read.size, kLargestReply));
    int more = names.seek(read.offset);
    Listing::Entry entry;
    while (more == 0 && (more = names.peek(entry)) == 1) {
        if (!reply.add(entry)) {
            break;
        }
        names.skip();
        more = 0;
    }
    if (more < 0 && reply.empty()) {
        return request.failed(more);
    }
    // Before the reply: the next request may follow it at once.
    guard.unlock();
    if (!reply.empty()) {
        park(context, request, read, opened);
    }
    reply.send();
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
