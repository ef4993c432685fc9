// Reads the marks that overlayfs and OCI images write into a layer: whiteouts, opaque directories,
// redirects, metacopies. The source of the kernel's forms is
// Documentation/filesystems/overlayfs.rst (Linux 6.18), that of the others the layer chapter of the
// OCI image specification.
//
// No state; any thread.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace zc {

// Why the layers below are not asked for the rest of a file or directory. Whoever owns a file may
// set marks of the `user.` namespace, and could name what he has no right to read.
enum class Refusal : std::uint8_t { none, user_metacopy, user_redirect, bad_redirect, no_data };
// In words; "" for none.
std::string_view text_of(Refusal refusal) noexcept;

// The marks in extended attributes (overlay.*, `trusted.` or `user.`).
struct Marks {
    bool whiteout = false;  // counts for an empty regular file only
    bool opaque = false;
    bool metacopy = false;
    bool redirect = false;
    std::string leads_to;  // a name, or the names of a path from the root, each behind a slash
    Refusal refused = Refusal::none;
};

// Of `name` in a directory. 0 or -errno.
int read_marks(int directory, const char* name, Marks& into);

// A character device 0:0.
bool is_device_whiteout(const struct ::statx& status) noexcept;
// In a directory: nothing of the layers below shows.
inline constexpr const char* kOpaqueName = ".wh..wh..opq";
inline constexpr std::string_view kWhiteoutPrefix = ".wh.";
// A name that OCI layers keep for whiteouts, so that it is never shown.
bool is_reserved(std::string_view name) noexcept;
// The name that hides another in the layers below: `.wh.NAME`.
std::string whiteout_of(std::string_view name);

// The name that a layer has for an extended attribute that a client asks for.
std::string backing_xattr(std::string_view name);
// Whether an extended attribute is a mark of the layer itself, which is not copied up.
bool is_mark(std::string_view name) noexcept;
// Makes a list of names what clients see of it, in place; returns its size.
std::size_t shown_xattrs(std::span<char> names) noexcept;

}  // namespace zc
