#include "serve/sources/layer_marks.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "sys/files.hpp"

namespace zc {

namespace {

constexpr std::array<std::string_view, 2> kNamespaces{"trusted.overlay.", "user.overlay."};
// An overlayfs inside an overlayfs repeats this prefix in its attributes.
constexpr std::string_view kEscape = "overlay.";
constexpr const char* kTrustedMetacopy = "trusted.overlay.metacopy";
constexpr const char* kTrustedRedirect = "trusted.overlay.redirect";
constexpr std::size_t kLongestRedirect = 4096;  // PATH_MAX
constexpr std::size_t kUsualNames = 512;
constexpr std::size_t kMostNames = 64 << 10;  // XATTR_LIST_MAX

std::string_view namespace_of(std::string_view name) noexcept {
    for (const auto one : kNamespaces) {
        if (name.starts_with(one)) {
            return one;
        }
    }
    return {};
}

bool is_absent(int error) noexcept {
    return error == -ENODATA || error == -EOPNOTSUPP || error == -EACCES || error == -EPERM;
}

// `trusted.` counts before `user.`, whatever the order in which they are listed.
int read_opaque(int directory, const char* name, bool& into) noexcept {
    for (const auto* attribute : {"trusted.overlay.opaque", "user.overlay.opaque"}) {
        char value = 0;
        const auto size = sys::get_xattr_of(directory, name, attribute, &value, sizeof value);
        if (size >= 0 || size == -ERANGE) {
            into = size == 1 && value == 'y';
            return 0;
        }
        if (!is_absent(static_cast<int>(size))) {
            return static_cast<int>(size);
        }
    }
    return 0;
}

// A name, or a path from the root; without `.` and `..`.
bool is_sound(std::string_view redirect) noexcept {
    const bool is_path = redirect.starts_with('/');
    for (bool more = true; more;) {
        redirect.remove_prefix(is_path && !redirect.empty() ? 1 : 0);
        const auto one = redirect.substr(0, redirect.find('/'));
        if (one.empty() || one == "." || one == ".." || one.find('\0') != one.npos) {
            return false;
        }
        redirect.remove_prefix(one.size());
        more = !redirect.empty();
        if (more && !is_path) {
            return false;
        }
    }
    return true;
}

int read_redirect(int directory, const char* name, Marks& into) {
    std::array<char, kLongestRedirect> value;
    const auto size =
        sys::get_xattr_of(directory, name, kTrustedRedirect, value.data(), value.size());
    if (size < 0 && size != -ERANGE) {
        into.refused = Refusal::bad_redirect;
        return is_absent(static_cast<int>(size)) ? 0 : static_cast<int>(size);
    }
    const std::string_view text(value.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
    if (into.refused == Refusal::none && !is_sound(text)) {
        into.refused = Refusal::bad_redirect;
    }
    into.leads_to = text;
    return 0;
}

int note_marks(int directory, const char* name, std::string_view names, Marks& into) {
    bool opaque = false;
    std::array<bool, 2> trusted{};  // the metacopy, the redirect
    while (!names.empty()) {
        const std::string_view one(names.data());
        names.remove_prefix(one.size() + 1);
        const auto within = namespace_of(one);
        if (within.empty()) {
            continue;
        }
        const auto mark = one.substr(within.size());
        into.whiteout |= mark == "whiteout";
        into.metacopy |= mark == "metacopy";
        into.redirect |= mark == "redirect";
        opaque |= mark == "opaque";
        trusted[0] |= one == kTrustedMetacopy;
        trusted[1] |= one == kTrustedRedirect;
    }
    if (into.metacopy && !trusted[0]) {
        into.refused = Refusal::user_metacopy;
    } else if (into.redirect && !trusted[1]) {
        into.refused = Refusal::user_redirect;
    }
    const int error = trusted[1] ? read_redirect(directory, name, into) : 0;
    return error == 0 && opaque ? read_opaque(directory, name, into.opaque) : error;
}

}  // namespace

std::string_view text_of(Refusal refusal) noexcept {
    switch (refusal) {
        case Refusal::none:
            return "";
        case Refusal::user_metacopy:
            return "user.overlay.metacopy is not followed, as whoever owns the file may have set "
                   "it";
        case Refusal::user_redirect:
            return "user.overlay.redirect is not followed, as whoever owns the file may have set "
                   "it";
        case Refusal::bad_redirect:
            return "trusted.overlay.redirect is no path";
        case Refusal::no_data:
            return "no layer below has the data of the metacopy";
    }
    return "";
}

int read_marks(int directory, const char* name, Marks& into) {
    std::array<char, kUsualNames> few;
    auto size = sys::list_xattr_of(directory, name, few.data(), few.size());
    if (size != -ERANGE) {
        if (size <= 0) {
            return size == 0 || is_absent(static_cast<int>(size)) ? 0 : static_cast<int>(size);
        }
        return note_marks(directory, name, {few.data(), static_cast<std::size_t>(size)}, into);
    }
    std::vector<char> many(kMostNames);
    size = sys::list_xattr_of(directory, name, many.data(), many.size());
    if (size < 0) {
        return static_cast<int>(size);
    }
    return note_marks(directory, name, {many.data(), static_cast<std::size_t>(size)}, into);
}

bool is_device_whiteout(const struct ::statx& status) noexcept {
    return S_ISCHR(status.stx_mode) && status.stx_rdev_major == 0 && status.stx_rdev_minor == 0;
}

bool is_reserved(std::string_view name) noexcept {
    return name.starts_with(kWhiteoutPrefix);
}

std::string whiteout_of(std::string_view name) {
    return std::string(kWhiteoutPrefix).append(name);
}

std::string backing_xattr(std::string_view name) {
    const auto within = namespace_of(name);
    std::string backing(name);
    return within.empty() ? backing : backing.insert(within.size(), kEscape);
}

bool is_mark(std::string_view name) noexcept {
    const auto within = namespace_of(name);
    return !within.empty() && !name.substr(within.size()).starts_with(kEscape);
}

std::size_t shown_xattrs(std::span<char> names) noexcept {
    std::size_t kept = 0;
    for (std::size_t at = 0; at < names.size();) {
        const std::string_view name(names.data() + at);
        at += name.size() + 1;
        const auto within = namespace_of(name);
        auto rest = name.substr(within.size());
        if (!within.empty()) {
            if (!rest.starts_with(kEscape)) {
                continue;
            }
            rest.remove_prefix(kEscape.size());
        }
        // From the front on: what is moved never lies before where it goes.
        std::memmove(names.data() + kept, within.empty() ? name.data() : within.data(),
                     within.size());
        kept += within.size();
        std::memmove(names.data() + kept, rest.data(), rest.size());
        kept += rest.size();
        names[kept++] = '\0';
    }
    return kept;
}

}  // namespace zc
