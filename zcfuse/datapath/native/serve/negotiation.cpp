#include "serve/negotiation.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "sys/syscalls.hpp"
#include "transport/channel.hpp"

namespace zc {

namespace {

// The kernel's limit where /proc/sys/fs/fuse/max_pages_limit does not say (before Linux 6.13).
constexpr std::size_t kDefaultMaxPages = 256;
// Larger requests were not measured to be faster; each serving thread holds a buffer of this size.
constexpr std::size_t kMostPages = 1024;
// The least that the kernel accepts, and all that a mount without writes needs. The buffer that
// requests are read into must hold it.
constexpr std::uint32_t kReadOnlyMaxWrite = 4096;
constexpr std::uint32_t kMaxWrite = 1 << 20;
// A READ reply that goes through the upcall socket is one message, for which the kernel wants
// contiguous memory: keep it to what an allocation can be expected to find.
constexpr std::size_t kUpcallPages = 32;
// Requests are not made small enough for a pipe shorter than this: the pool serves them.
constexpr std::size_t kUsefulSlots = 64;
constexpr std::size_t kLeastMessage = 128 << 10;

// DONT_MASK: the umask is applied by the backing filesystem, which knows of default ACLs.
// HANDLE_KILLPRIV_V2: it clears set-id bits as well; without that the kernel asks for an extended
// attribute before each write. The kernel handles file locks itself, because only this kernel sees
// the mount.
void negotiate_writing(std::uint64_t offer, std::uint64_t& flags) noexcept {
    using namespace abi;
    flags &= ~(init::handle_killpriv | init::posix_locks | init::flock_locks | init::setxattr_ext);
    flags |= offer &
             (init::dont_mask | init::atomic_o_trunc | init::big_writes | init::handle_killpriv_v2 |
              init::direct_io_allow_mmap | init::posix_acl | init::has_ioctl_dir);
}

std::size_t kernel_max_pages() {
    std::ifstream file("/proc/sys/fs/fuse/max_pages_limit");
    std::size_t pages = 0;
    return file >> pages && pages > 0 ? pages : kDefaultMaxPages;
}

// An INIT request that was checked when it came.
abi::InitIn offer_in(std::span<const std::byte> request) noexcept {
    abi::InitIn offer{};
    if (request.size() >= sizeof(abi::InHeader) + sizeof offer) {
        std::memcpy(&offer, request.data() + sizeof(abi::InHeader), sizeof offer);
    }
    if ((offer.flags & abi::init::init_ext) == 0) {
        offer.flags2 = 0;
    }
    return offer;
}

Negotiation::Outcome outcome_of(const abi::InitOut& reply, std::uint32_t minor) noexcept {
    return {true,
            minor,
            reply.flags | (std::uint64_t{reply.flags2} << 32),
            reply.max_readahead,
            reply.max_pages,
            reply.max_background,
            reply.max_write,
            reply.max_stack_depth};
}

}  // namespace

Mode parse_mode(const std::string& name) {
    static constexpr std::pair<const char*, Mode> modes[] = {
        {"auto", Mode::automatic}, {"upcall", Mode::upcall}, {"pool", Mode::pool},
        {"mmap", Mode::mmap},      {"splice", Mode::splice}, {"passthrough", Mode::passthrough}};
    for (const auto& [known, mode] : modes) {
        if (name == known) {
            return mode;
        }
    }
    throw std::invalid_argument("unknown path '" + name +
                                "': one of auto, upcall, pool, mmap, splice, passthrough");
}

Limits choose_limits(const Config& config, std::size_t pipe_slots) {
    const Mode mode = parse_mode(config.path);
    if (config.threads > kMostThreads) {
        throw std::invalid_argument("threads must be at most " + std::to_string(kMostThreads));
    }
    if (config.stack_depth < 1 || config.stack_depth > kMostStackDepth) {
        throw std::invalid_argument("stack depth must be 1 or 2");
    }
    if (config.message_bytes > 0 && config.message_bytes < kLeastMessage) {
        throw std::invalid_argument("the upcall socket takes messages of less than 128 KiB");
    }
    std::size_t pages = std::min(kernel_max_pages(), kMostPages);
    if (mode == Mode::upcall) {
        pages = std::min(pages, kUpcallPages);
    } else if (mode != Mode::pool && pipe_slots >= kUsefulSlots) {
        // The header, a start within a page, and two for a file made of parts: where one ends and
        // the next begins within a page.
        pages = std::min(pages, pipe_slots - 4);
    }
    if (config.message_bytes > 0) {
        pages =
            std::min(pages, (config.message_bytes - sizeof(abi::OutHeader)) / sys::page_bytes());
    }
    const auto processors = std::max(1U, std::thread::hardware_concurrency());
    const auto background =
        config.shared ? std::uint32_t{kSharedBackground} : std::clamp(processors * 16, 64U, 1024U);
    return {static_cast<std::uint16_t>(std::max<std::size_t>(pages, 1)),
            static_cast<std::uint16_t>(background)};
}

Negotiation::Negotiation(const Config& config, Limits limits, SessionMemory& session)
    : mode_(parse_mode(config.path)),
      stack_depth_(config.stack_depth),
      read_only_(config.read_only),
      immutable_(config.immutable),
      pushes_(config.push),
      silent_opens_(config.wants_silent_opens()),
      session_(session),
      limits_(limits),
      offer_(offer_in(session.init())) {
    if (const auto reply = session.reply()) {
        outcome_ = outcome_of(*reply, offer_.minor);
        limits_ = {reply->max_pages, reply->max_background};
        silent_opens_ = outcome_.zero_message_opens();
    }
}

std::uint32_t Negotiation::max_write(bool read_only) noexcept {
    return read_only ? kReadOnlyMaxWrite : kMaxWrite;
}

void Negotiation::offer_rings(bool demanded) {
    const std::lock_guard guard(lock_);
    rings_ = true;
    rings_demanded_ = demanded;
}

void Negotiation::offered(std::span<const std::byte> request, bool may_be_silent) {
    const std::lock_guard guard(lock_);
    silent_opens_ = silent_opens_ && may_be_silent;
    offer_ = offer_in(request);
    session_.record_init(request);
}

void Negotiation::amend(abi::InitOut& reply) {
    using namespace abi;
    const std::lock_guard guard(lock_);
    if (const auto agreed = session_.reply()) {
        reply = *agreed;
        return;
    }
    const std::uint64_t offer = offer_.flags | (std::uint64_t{offer_.flags2} << 32);
    std::uint64_t flags = reply.flags;
    flags &= ~(init::export_support | init::readdirplus_auto | init::writeback_cache |
               init::over_io_uring);
    flags |= offer & (init::async_read | init::parallel_dirops | init::max_pages | init::async_dio |
                      init::abort_error | init::cache_symlinks | init::auto_inval_data |
                      init::init_ext | init::has_resend);
    if (immutable_) {
        flags &= ~init::auto_inval_data;  // nothing changes, so there is nothing to look for
    }
    if (pushes_) {
        flags |= offer & init::direct_io_allow_mmap;  // of files whose pages are not to be kept
    }
    if (silent_opens_) {
        flags |= offer & (init::no_open_support | init::no_opendir_support);
    }
    if (!read_only_) {
        negotiate_writing(offer, flags);
    }
    // An open without a message names no backing file.
    const bool wanted = !silent_opens_ && (mode_ == Mode::automatic || mode_ == Mode::passthrough);
    if (wanted && (offer & init::passthrough) != 0) {
        flags |= init::passthrough;
        reply.max_stack_depth = stack_depth_;
    }
    // Without passthrough most bytes would use splice, which a ring lacks. A mount with silent
    // opens gives up passthrough for cheap first accesses to many small files: those are mostly
    // round trips, which a ring makes cheaper.
    const bool ring_pays =
        mode_ != Mode::automatic || silent_opens_ || (flags & init::passthrough) != 0;
    if (rings_ && (rings_demanded_ || ring_pays)) {
        flags |= offer & init::over_io_uring;
    }
    reply.flags = static_cast<std::uint32_t>(flags);
    reply.flags2 = static_cast<std::uint32_t>(flags >> 32);
    reply.max_pages = limits_.max_pages;
    reply.max_background = limits_.max_background;
    reply.congestion_threshold = static_cast<std::uint16_t>(limits_.max_background * 3 / 4);
    reply.max_readahead = offer_.max_readahead;
    reply.max_write = max_write(read_only_);
    reply.time_gran = 1;
    outcome_ = outcome_of(reply, offer_.minor);
    session_.record_reply(reply);
}

Negotiation::Outcome Negotiation::outcome() const {
    const std::lock_guard guard(lock_);
    return outcome_;
}

}  // namespace zc
