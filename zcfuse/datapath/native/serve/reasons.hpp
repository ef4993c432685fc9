// Why the data path used no better serving path, transport or lease. These are codes: Python has
// the text and the advice for each (zcfuse/reasons.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace zc {

// clang-format off
#define ZC_REASONS(CODE)             \
    CODE(splice_too_small)           \
    CODE(splice_pipe_too_short)      \
    CODE(splice_no_pipe)             \
    CODE(splice_refused)             \
    CODE(splice_not_over_uring)      \
    CODE(mmap_pipe_too_short)        \
    CODE(mmap_no_pipe)               \
    CODE(mmap_refused)               \
    CODE(mmap_beyond_end)            \
    CODE(mmap_not_prefaulted)        \
    CODE(mmap_unlocked)              \
    CODE(mmap_not_over_uring)        \
    CODE(mmap_far)                   \
    CODE(pool_unlocked)              \
    CODE(passthrough_read)           \
    CODE(passthrough_not_permitted)  \
    CODE(passthrough_stacked)        \
    CODE(passthrough_stacked_twice)  \
    CODE(passthrough_not_offered)    \
    CODE(passthrough_silent)         \
    CODE(passthrough_extents)        \
    CODE(passthrough_incomplete)     \
    CODE(passthrough_refused)        \
    CODE(no_lease)                   \
    CODE(opens_not_offered)          \
    CODE(opens_not_leased)           \
    CODE(opens_large_files)          \
    CODE(listing_elsewhere)          \
    CODE(listing_refused)            \
    CODE(snapshots_refused)          \
    CODE(read_refused)               \
    CODE(read_not_present)           \
    CODE(call_elsewhere)             \
    CODE(call_refused)               \
    CODE(rename_refused)             \
    CODE(nameless_not_kept)          \
    CODE(files_refused)              \
    CODE(reserve_refused)            \
    CODE(upcall_waited)              \
    CODE(upcall_refused)             \
    CODE(killed_daemons)             \
    CODE(push_not_permitted)         \
    CODE(push_names_only)            \
    CODE(push_no_watch)              \
    CODE(push_filesystem)            \
    CODE(push_queue)                 \
    CODE(strict_written)             \
    CODE(strict_refused)             \
    CODE(strict_parts)               \
    CODE(ring_not_wanted)            \
    CODE(ring_ends_with_daemon)      \
    CODE(ring_no_device)             \
    CODE(ring_not_in_kernel)         \
    CODE(ring_switched_off)          \
    CODE(ring_not_for_path)          \
    CODE(ring_no_passthrough)        \
    CODE(ring_stacked_source)        \
    CODE(ring_parts)                 \
    CODE(ring_not_offered)           \
    CODE(ring_failed)
// clang-format on

// `none`: there is no better one.
enum class Reason : std::uint8_t {
    none,
#define ZC_ENUMERATOR(code) code,
    ZC_REASONS(ZC_ENUMERATOR)
#undef ZC_ENUMERATOR
        count_
};
inline constexpr std::size_t kReasons = static_cast<std::size_t>(Reason::count_);

// The code as Python knows it; "" for `none`.
std::string_view code_of(Reason reason) noexcept;

// A reason, and what it concerns or what the system said, such as an errno's name.
struct Cause {
    Reason reason = Reason::none;
    std::string detail{};

    explicit operator bool() const noexcept { return reason != Reason::none; }
    // "CODE", or "CODE: DETAIL"; "" for `none`.
    std::string text() const;
};

}  // namespace zc
