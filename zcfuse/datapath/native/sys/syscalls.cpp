#include "sys/syscalls.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "abi/fuse.hpp"

namespace zc::sys {

namespace {

template <typename Result>
Result or_errno(Result result) noexcept {
    return result < 0 ? static_cast<Result>(-errno) : result;
}

template <typename Operation>
auto retrying(Operation operation) noexcept {
    auto result = operation();
    while (result < 0 && errno == EINTR) {
        result = operation();
    }
    return or_errno(result);
}

// The first half of the pieces' bytes, for a fault that makes a call short.
struct Halved {
    std::array<iovec, 16> pieces{};
    std::size_t count = 0;

    explicit Halved(std::span<const iovec> whole) noexcept {
        std::size_t total = 0;
        for (const auto& piece : whole) {
            total += piece.iov_len;
        }
        std::size_t left = std::max<std::size_t>(total / 2, 1);
        for (const auto& piece : whole) {
            if (left == 0 || count == pieces.size()) {
                break;
            }
            pieces[count++] = {piece.iov_base, std::min(piece.iov_len, left)};
            left -= std::min(piece.iov_len, left);
        }
    }
    std::span<const iovec> span() const noexcept { return {pieces.data(), count}; }
};

// A file of tmpfs, or a memfd: its holes take no pages.
bool is_memory(int fd) noexcept {
    return ::fcntl(fd, F_GET_SEALS) >= 0;
}

// Whether each page of the range, up to the end of the file, is in the page cache.
enum class Cached : std::uint8_t { no, yes, unknown };

// Unknown: cachestat(2) needs Linux 6.5 and the owner of the file.
Cached cached(int fd, std::uint64_t offset, std::uint64_t length) noexcept {
    if (is_memory(fd)) {
        return Cached::yes;
    }
    struct stat attributes {};
    if (::fstat(fd, &attributes) < 0) {
        return Cached::unknown;
    }
    struct {
        std::uint64_t offset;
        std::uint64_t length;
    } range{offset, length};
    const auto size = static_cast<std::uint64_t>(attributes.st_size);
    if (offset >= size || range.length == 0) {
        return Cached::yes;
    }
    range.length = std::min(range.length, size - offset);
    struct {
        std::uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } state{};
    constexpr long kCachestat = 451;
    if (::syscall(kCachestat, fd, &range, &state, 0) < 0) {
        return Cached::unknown;
    }
    const auto page = page_bytes();
    const bool all = state.cached >= (offset + range.length - 1) / page - offset / page + 1;
    return all ? Cached::yes : Cached::no;
}

std::uint64_t total_of(std::span<const iovec> pieces) noexcept {
    std::uint64_t total = 0;
    for (const auto& piece : pieces) {
        total += piece.iov_len;
    }
    return total;
}

// Reads a byte if it is in memory, and throws it away.
ssize_t probe(int fd, std::uint64_t offset) noexcept {
    char byte = 0;
    const iovec piece{&byte, 1};
    return retrying(
        [&] { return ::preadv2(fd, &piece, 1, static_cast<off_t>(offset), RWF_NOWAIT); });
}

std::size_t halved(std::size_t size) noexcept {
    return std::max<std::size_t>(size / 2, 1);
}

}  // namespace

ssize_t read(int fd, void* data, std::size_t size) noexcept {
    if (const Fault wanted = fault(Call::read); wanted < 0) {
        return wanted;
    }
    return or_errno(::read(fd, data, size));
}

ssize_t preadv(int fd, std::span<const iovec> pieces, std::uint64_t offset) noexcept {
    const auto call = [fd, offset](std::span<const iovec> into) {
        return retrying([=] {
            return ::preadv(fd, into.data(), static_cast<int>(into.size()),
                            static_cast<off_t>(offset));
        });
    };
    if (const Fault wanted = fault(Call::preadv); wanted != 0) {
        return wanted < 0 ? wanted : call(Halved(pieces).span());
    }
    return call(pieces);
}

ssize_t preadv_nowait(int fd, std::span<const iovec> pieces, std::uint64_t offset) noexcept {
    if (const Fault wanted = fault(Call::preadv_nowait); wanted < 0) {
        return wanted;
    }
    const auto call = [fd, offset](std::span<const iovec> into, int flags) {
        return retrying([=] {
            return ::preadv2(fd, into.data(), static_cast<int>(into.size()),
                             static_cast<off_t>(offset), flags);
        });
    };
    if (faults_armed.load(std::memory_order_relaxed) && is_slow_next(Call::preadv)) {
        return -EAGAIN;
    }
    const Fault wanted = fault(Call::preadv);
    if (wanted < 0) {
        return wanted;
    }
    const Halved half(pieces);
    const auto into = wanted == kShort ? half.span() : pieces;
    const auto n = call(into, RWF_NOWAIT);
    if (n != -EOPNOTSUPP) {
        return n;
    }
    // A filesystem without the flag (tmpfs, overlayfs) may still support cachestat(2).
    return cached(fd, offset, total_of(into)) == Cached::yes ? call(into, 0) : -EAGAIN;
}

bool seems_in_memory(int fd, std::uint64_t offset, std::size_t size) noexcept {
    const auto known = cached(fd, offset, size);
    if (known != Cached::unknown || size == 0) {
        return known == Cached::yes;
    }
    return probe(fd, offset) != -EAGAIN && probe(fd, offset + size - 1) != -EAGAIN;
}

// Behind the end of any file, where no filesystem reads anything.
bool reads_promptly(int fd) noexcept {
    constexpr std::uint64_t kBehind = std::uint64_t{1} << 62;
    return is_memory(fd) || probe(fd, kBehind) != -EOPNOTSUPP;
}

ssize_t writev(int fd, std::span<const iovec> pieces) noexcept {
    if (const Fault wanted = fault(Call::writev); wanted < 0) {
        return wanted;
    }
    return retrying([=] { return ::writev(fd, pieces.data(), static_cast<int>(pieces.size())); });
}

ssize_t send(int fd, std::span<const iovec> pieces, int flags) noexcept {
    if (const Fault wanted = fault(Call::send); wanted < 0) {
        return wanted;
    }
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces.data());
    message.msg_iovlen = pieces.size();
    return retrying([&] { return ::sendmsg(fd, &message, flags | MSG_NOSIGNAL); });
}

ssize_t recv(int fd, void* data, std::size_t size, int flags) noexcept {
    if (const Fault wanted = fault(Call::recv); wanted < 0) {
        return wanted;
    }
    return retrying([=] { return ::recv(fd, data, size, flags); });
}

ssize_t splice_in(int file, std::uint64_t offset, int pipe, std::size_t size) noexcept {
    if (const Fault wanted = fault(Call::splice_in); wanted != 0) {
        if (wanted < 0) {
            return wanted;
        }
        size = halved(size);
    }
    return retrying([&] {
        auto position = static_cast<off64_t>(offset);
        return ::splice(file, &position, pipe, nullptr, size, SPLICE_F_NONBLOCK);
    });
}

ssize_t splice_out(int pipe, int fd, std::size_t size) noexcept {
    if (const Fault wanted = fault(Call::splice_out); wanted < 0) {
        return wanted;
    }
    return retrying([=] { return ::splice(pipe, nullptr, fd, nullptr, size, 0); });
}

ssize_t vmsplice(int pipe, std::span<const iovec> pieces) noexcept {
    const auto call = [pipe](std::span<const iovec> from) {
        return retrying(
            [=] { return ::vmsplice(pipe, from.data(), from.size(), SPLICE_F_NONBLOCK); });
    };
    if (const Fault wanted = fault(Call::vmsplice); wanted != 0) {
        return wanted < 0 ? wanted : call(Halved(pieces).span());
    }
    return call(pieces);
}

int pipe_pair(UniqueFd& read_end, UniqueFd& write_end) noexcept {
    if (const Fault wanted = fault(Call::pipe); wanted < 0) {
        return wanted;
    }
    std::array<int, 2> ends{-1, -1};
    if (::pipe2(ends.data(), O_CLOEXEC) < 0) {
        return -errno;
    }
    read_end.reset(ends[0]);
    write_end.reset(ends[1]);
    return 0;
}

int set_pipe_size(int pipe, std::size_t bytes) noexcept {
    if (const Fault wanted = fault(Call::pipe); wanted < 0) {
        return wanted;
    }
    return or_errno(::fcntl(pipe, F_SETPIPE_SZ, static_cast<int>(bytes)));
}

int pipe_size(int pipe) noexcept {
    return or_errno(::fcntl(pipe, F_GETPIPE_SZ));
}

void* mmap(std::size_t size, int protection, int flags, int fd, std::uint64_t offset,
           int& error) noexcept {
    error = std::min(fault(Call::mmap), 0);
    if (error != 0) {
        return nullptr;
    }
    void* data = ::mmap(nullptr, size, protection, flags, fd, static_cast<off_t>(offset));
    if (data == MAP_FAILED) {
        error = -errno;
        return nullptr;
    }
    return data;
}

int munmap(void* data, std::size_t size) noexcept {
    return or_errno(::munmap(data, size));
}

int mlock(const void* data, std::size_t size) noexcept {
    if (const Fault wanted = fault(Call::mlock); wanted < 0) {
        return wanted;
    }
    return or_errno(::mlock(data, size));
}

int munlock(const void* data, std::size_t size) noexcept {
    return or_errno(::munlock(data, size));
}

int madvise(void* data, std::size_t size, int advice) noexcept {
    if (const Fault wanted = fault(Call::madvise); wanted < 0) {
        return wanted;
    }
    return retrying([=] { return ::madvise(data, size, advice); });
}

int file_size(int fd, std::uint64_t& size) noexcept {
    struct stat attributes {};
    if (::fstat(fd, &attributes) < 0) {
        return -errno;
    }
    size = static_cast<std::uint64_t>(attributes.st_size);
    return 0;
}

int dup_cloexec(int fd, UniqueFd& copy) noexcept {
    if (const Fault wanted = fault(Call::dup); wanted < 0) {
        return wanted;
    }
    const int result = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (result < 0) {
        return -errno;
    }
    copy.reset(result);
    return 0;
}

int set_socket_buffer(int fd, int option, int forced_option, int bytes) noexcept {
    if (const Fault wanted = fault(Call::setsockopt); wanted < 0) {
        return wanted;
    }
    // The forced option needs CAP_NET_ADMIN; the other is capped by net.core.{w,r}mem_max
    // (socket(7)).
    if (::setsockopt(fd, SOL_SOCKET, forced_option, &bytes, sizeof bytes) == 0) {
        return 0;
    }
    return or_errno(::setsockopt(fd, SOL_SOCKET, option, &bytes, sizeof bytes));
}

int clone_device(int session, UniqueFd& clone) noexcept {
    if (const Fault wanted = fault(Call::clone); wanted < 0) {
        return wanted;
    }
    UniqueFd fresh(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    if (!fresh) {
        return -errno;
    }
    auto from = static_cast<std::uint32_t>(session);
    if (::ioctl(fresh.get(), abi::kIoctlClone, &from) < 0) {
        return -errno;
    }
    clone = std::move(fresh);
    return 0;
}

int backing_open(int session, int file) noexcept {
    if (const Fault wanted = fault(Call::backing_open); wanted < 0) {
        return wanted;
    }
    abi::BackingMap map{};
    map.fd = file;
    return or_errno(::ioctl(session, abi::kIoctlBackingOpen, &map));
}

int backing_close(int session, int backing_id) noexcept {
    auto id = static_cast<std::uint32_t>(backing_id);
    return or_errno(::ioctl(session, abi::kIoctlBackingClose, &id));
}

std::size_t page_bytes() noexcept {
    static const auto bytes = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return bytes;
}

pid_t thread_id() noexcept {
    return static_cast<pid_t>(::syscall(SYS_gettid));
}

}  // namespace zc::sys
