// One request about a node below a leased directory, and the operations that answer it.
//
// Each operation is a function in its own file. It answers exactly once and returns true, or sends
// nothing and returns false: then the request goes up. Serving threads call them; each has its
// Context.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "abi/fuse_nodes.hpp"
#include "serve/amend.hpp"
#include "serve/caller.hpp"
#include "serve/state.hpp"

namespace zc::ops {

struct Request {
    const std::shared_ptr<const Channel>& channel;
    const abi::InHeader& header;
    std::span<const std::byte> body;

    template <typename Structure>
    bool parse(Structure& into) const noexcept {
        if (body.size() < sizeof into) {
            return false;
        }
        std::memcpy(&into, body.data(), sizeof into);
        return true;
    }
    // The NUL-terminated name at `offset` of the body; nullptr where none is.
    const char* name(std::size_t offset = 0) const noexcept;

    // Each returns false when the kernel did not take the reply.
    bool answer(std::span<const std::byte> payload) const noexcept;
    template <typename Structure>
    bool answer_with(const Structure& structure) const noexcept {
        return answer(std::as_bytes(std::span(&structure, 1)));
    }
    bool done() const noexcept { return answer({}); }
    bool fail(int error) const noexcept;
    // Answers the errno and returns true; returns false for kUpcall.
    bool failed(int error) const noexcept;
};

struct Context {
    State& state;
    ThreadCounts& counts;
    std::vector<std::byte> buffer;  // for a reply of any size
    ThreadIdentity identity{};
    // How much of a directory this thread reads for a request; one that takes more goes to the
    // queue for listings. A thread for calls reads none: what it asks is slow.
    enum class Lists : std::uint8_t { none, little, all } lists = Lists::little;
    // Another thread answers the request at hand, and counts it.
    bool elsewhere = false;
    bool recorded = false;         // the request at hand, for a successor (serve/ops/recorded.hpp)
    Clock::time_point received{};  // when the request at hand was taken off its channel

    LeasedNodes& leased_nodes() const noexcept { return state.leased_nodes; }
};

abi::Attr attributes_of(const struct ::statx& status) noexcept;
abi::EntryOut entry_of(std::uint64_t nodeid, const struct ::statx& status,
                       Validity validity) noexcept;

// Whether the kernel may keep what a look at a file shows. Ask before that look.
inline bool keeps_attributes(const Context& context, std::uint64_t nodeid) {
    return !context.leased_nodes().is_strict(nodeid) ||
           context.state.coherence->read_leases().holds(nodeid);
}

// Whether each change of the directory's names is pushed. Ask before a look at any of them, and
// look in what `directory` is then.
inline bool watches_names(const Context& context, std::shared_ptr<const Directory>& directory) {
    return directory->root->source->freshness() == Freshness::names && context.state.coherence &&
           context.state.coherence->names().watches(directory);
}

// Opens a listing as LeasedNodes::list() does, of the directory that a request names.
inline int open_listing(Context& context, const abi::InHeader& header, OpenDirectory& into,
                        std::vector<struct ::statx>& versions, Freshness& freshness) {
    const auto watches = [&](auto& directory) { return watches_names(context, directory); };
    return context.leased_nodes().list(header.nodeid, header.uid, context.counts, watches, into,
                                       versions, freshness);
}

// Counts a lookup of what `find` says that a name in a directory shows, and makes the entry that
// the kernel is given; the caller forgets it where the reply fails. `names_watched`: as
// watches_names() says. 0, -errno or kUpcall.
template <typename Find>
int count_lookup(Context& context, const Directory& directory, std::string_view name,
                 bool names_watched, Find find, Found& found, abi::EntryOut& into) {
    auto copies = context.leased_nodes().copies();
    if (const int error = find(found); error != 0) {
        return error;
    }
    auto& nodes = context.leased_nodes().nodes();
    if (nodes.any_revoked() && nodes.is_revoked(found.identity)) {
        return kUpcall;
    }
    const auto count = [&] {
        const bool several = found.status.stx_nlink > 1 && !S_ISDIR(found.status.stx_mode);
        return nodes.count(found.identity, directory.nodeid, name, several);
    };
    auto nodeid = count();
    // A file that was copied up meanwhile must not stay in the kernel as the old one.
    while (context.leased_nodes().copies() != copies) {
        copies = context.leased_nodes().copies();
        nodes.forget(nodeid, 1);
        if (const int error = find(found); error != 0) {
            return error;
        }
        nodeid = count();
    }
    const auto freshness = directory.root->source->freshness();
    const auto validity = context.leased_nodes().validity(freshness);
    // A change between the look and the count finds no node and is not pushed. So where changes are
    // pushed, the node is looked at again now. If its name stands for another by then, that change
    // is pushed behind this reply; only the attributes must not stay.
    Found again;
    const bool pushed = reports_changes(freshness);
    const bool keeps =
        freshness != Freshness::strict || context.state.coherence->read_leases().holds(nodeid);
    const bool same = !pushed || (find(again) == 0 && again.identity == found.identity);
    if (pushed && same) {
        found.status = again.status;
    }
    into = entry_of(nodeid, found.status, validity);
    if (names_watched) {
        const auto unlimited = context.leased_nodes().validity(Freshness::pushed);
        into.entry_valid = unlimited.seconds;
        into.entry_valid_nsec = unlimited.nanoseconds;
    }
    if (directory.personal) {
        into.entry_valid = into.entry_valid_nsec = 0;
    }
    // A store through a mapping is not seen by the kernel's FUSE: no attributes of a file that is
    // written may be kept.
    if (!same || (!keeps && S_ISREG(found.status.stx_mode)) ||
        context.leased_nodes().files().is_written(nodeid)) {
        into.attr_valid = into.attr_valid_nsec = 0;
    }
    return 0;
}

// The lease that answers a READ (or LSEEK, where `read` is nullptr) of a file that was opened
// without a message; 0, -errno or kUpcall.
int implicit_lease(Context& context, std::uint64_t nodeid, const abi::ReadIn* read,
                   OpenFiles::Lease& into);
// Whether the mount is immutable, or the changes below its root are pushed.
bool tree_allows_silent_opens(const State& state);
// Answers requests that the kernel can do without: ENOTTY to an IOCTL, ENOSYS to POLL and, where
// opens send no message, to opens and FLUSH. Returns false for all others.
bool answer_needless(Context& context, const Request& request);
// The request with a handle for control in it, where it comes without one from a file or directory
// that was opened without a message; `message` itself otherwise.
std::span<const std::byte> with_handle(Context& context, std::span<const std::byte> message);

bool lookup(Context& context, const Request& request);
bool forget(Context& context, const Request& request);
bool batch_forget(Context& context, const Request& request);
bool getattr(Context& context, const Request& request);
bool statx(Context& context, const Request& request);
bool readlink(Context& context, const Request& request);
bool access(Context& context, const Request& request);
bool statfs(Context& context, const Request& request);
bool open(Context& context, const Request& request);
bool release(Context& context, const Request& request);
bool flush(Context& context, const Request& request);
bool opendir(Context& context, const Request& request);
bool readdir(Context& context, const Request& request);
bool readdirplus(Context& context, const Request& request);
bool releasedir(Context& context, const Request& request);
bool getxattr(Context& context, const Request& request);
bool listxattr(Context& context, const Request& request);

// Answers what a directory lease covers; false for what goes up.
bool serve(Context& context, const Request& request);

}  // namespace zc::ops
