#include "serve/pipe.hpp"

#include <algorithm>
#include <array>

namespace zc {

namespace {

// The kernel rounds a pipe up to a power of two of slots, one slot a page (pipe(7)).
std::size_t slots_for(std::size_t payload) noexcept {
    const std::size_t needed = payload / sys::page_bytes() + 2;  // header, unaligned start
    std::size_t slots = 16;
    while (slots < needed) {
        slots *= 2;
    }
    return slots;
}

}  // namespace

ReplyPipe::ReplyPipe(std::size_t payload) noexcept
    : wanted_(slots_for(payload) * sys::page_bytes()) {
    int error = 0;
    header_ = static_cast<abi::OutHeader*>(sys::mmap(sys::page_bytes(), PROT_READ | PROT_WRITE,
                                                     MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1,
                                                     0, error));
    renew();
}

ReplyPipe::~ReplyPipe() {
    if (header_ != nullptr) {
        sys::munmap(header_, sys::page_bytes());
    }
}

void ReplyPipe::renew() noexcept {
    read_end_.reset();
    write_end_.reset();
    slots_ = 0;
    if (sys::pipe_pair(read_end_, write_end_) < 0) {
        return;
    }
    // An unprivileged user gets at most pipe-max-size: halve until it is granted.
    for (std::size_t bytes = wanted_; bytes >= sys::page_bytes() * 16; bytes /= 2) {
        if (const int got = sys::set_pipe_size(write_end_.get(), bytes); got > 0) {
            slots_ = static_cast<std::size_t>(got) / sys::page_bytes();
            return;
        }
    }
    // It keeps the size that it was made with: 16 slots, or 2 for a user who has used up
    // /proc/sys/fs/pipe-user-pages-soft.
    slots_ =
        static_cast<std::size_t>(std::max(sys::pipe_size(write_end_.get()), 0)) / sys::page_bytes();
}

std::size_t ReplyPipe::slots_of(std::uint64_t offset, std::size_t size) noexcept {
    const std::uint64_t first = offset / sys::page_bytes();
    const std::uint64_t last = (offset + size + sys::page_bytes() - 1) / sys::page_bytes();
    return size == 0 ? 0 : last - first;
}

ssize_t ReplyPipe::put_header(std::uint64_t unique) noexcept {
    *header_ = {sizeof(abi::OutHeader), 0, unique};
    const std::array<iovec, 1> piece{{{header_, sizeof(abi::OutHeader)}}};
    return sys::vmsplice(write_end_.get(), piece);
}

ssize_t ReplyPipe::splice(int file, std::uint64_t offset, std::size_t size) noexcept {
    return sys::splice_in(file, offset, write_end_.get(), size);
}

ssize_t ReplyPipe::map(std::span<const iovec> pieces) noexcept {
    return sys::vmsplice(write_end_.get(), pieces);
}

void ReplyPipe::patch(std::size_t payload) noexcept {
    header_->len = static_cast<std::uint32_t>(sizeof(abi::OutHeader) + payload);
}

}  // namespace zc
