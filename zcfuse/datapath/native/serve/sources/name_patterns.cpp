#include "serve/sources/name_patterns.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "serve/constants.hpp"

namespace zc {

namespace {

// A byte outside UTF-8 counts as one character, above all code points.
constexpr std::uint32_t kStray = 0x110000;

[[noreturn]] void refuse(const std::string& text, const char* reason) {
    throw std::invalid_argument("pattern '" + text + "': " + reason);
}

// The character at `at`, and behind it. As far as it matters: what is too long or no code point is
// equal to itself only.
std::uint32_t character(std::string_view text, std::size_t& at) {
    const auto first = static_cast<unsigned char>(text[at++]);
    const std::size_t more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : first >= 0xC2 ? 1 : 0;
    if (first < 0x80) {
        return first;
    }
    if (more == 0 || at + more > text.size()) {
        return kStray + first;
    }
    std::uint32_t value = first & (0x3FU >> more);
    for (std::size_t i = 0; i < more; ++i) {
        const auto next = static_cast<unsigned char>(text[at + i]);
        if ((next & 0xC0) != 0x80) {
            return kStray + first;
        }
        value = value << 6 | (next & 0x3FU);
    }
    at += more;
    return value;
}

std::uint32_t literal(std::string_view glob, std::size_t& at) {
    if (glob[at] == '\\') {
        ++at;
    }
    return character(glob, at);
}

// `at` is behind the `[`, and comes to be behind the `]`.
bool in_brackets(std::string_view glob, std::size_t& at, std::uint32_t wanted) {
    const bool negated = glob[at] == '!' || glob[at] == '^';
    at += negated ? 1 : 0;
    bool found = false;
    for (bool first = true; first || glob[at] != ']'; first = false) {
        const auto low = literal(glob, at);
        auto high = low;
        if (glob[at] == '-' && glob[at + 1] != ']') {
            ++at;
            high = literal(glob, at);
        }
        found = found || (low <= wanted && wanted <= high);
    }
    ++at;
    return found != negated;
}

// Requires that each bracket is closed and each `\` is followed by a character.
void check(const std::string& text, std::string_view part) {
    std::size_t at = 0;
    const auto skip = [&] {
        at += part[at] == '\\' ? 2 : 1;
        if (at > part.size()) {
            refuse(text, "nothing is behind the last \\");
        }
    };
    while (at < part.size()) {
        if (part[at] != '[') {
            skip();
            continue;
        }
        ++at;
        at += at < part.size() && (part[at] == '!' || part[at] == '^') ? 1 : 0;
        for (bool first = true; at < part.size() && (first || part[at] != ']'); first = false) {
            skip();
        }
        if (at >= part.size()) {
            refuse(text, "a [ is not closed; write \\[ for the character itself");
        }
        ++at;
    }
}

// Goes back to the last `*` only: what an earlier one takes makes no difference.
bool matches_part(std::string_view glob, std::string_view name) {
    std::size_t g = 0;
    std::size_t n = 0;
    std::size_t star = std::string_view::npos;
    std::size_t taken = 0;
    while (n < name.size() || g < glob.size()) {
        if (g < glob.size() && glob[g] == '*') {
            star = ++g;
            taken = n;
            continue;
        }
        if (g < glob.size() && n < name.size()) {
            const auto wanted = character(name, n);
            bool same = false;
            if (glob[g] == '[') {
                same = in_brackets(glob, ++g, wanted);
            } else {
                same = glob[g] == '?' ? (++g, true) : literal(glob, g) == wanted;
            }
            if (same) {
                continue;
            }
        }
        if (star == std::string_view::npos || taken >= name.size()) {
            return false;
        }
        character(name, taken);
        g = star;
        n = taken;
    }
    return true;
}

bool is_name(std::string_view text) {
    return !text.empty() && text != "." && text != ".." && text.size() <= kNameBytes;
}

}  // namespace

NamePatterns::NamePatterns(const Texts& hide, const Texts& show, const Renames& rename) {
    for (const auto& text : hide) {
        hide_.push_back(glob_of(text));
    }
    for (const auto& text : show) {
        show_.push_back(glob_of(text));
    }
    for (const auto& [from, to] : rename) {
        renames_.push_back(rename_of(from, to));
    }
}

NamePatterns::Glob NamePatterns::glob_of(const std::string& text) {
    Glob glob;
    std::string_view left = text;
    if (left.ends_with('/')) {
        left.remove_suffix(1);
        glob.directories = true;
    }
    glob.is_path = left.find('/') != std::string_view::npos;
    if (left.starts_with('/')) {
        left.remove_prefix(1);
    }
    for (bool more = true; more;) {
        const auto end = std::min(left.find('/'), left.size());
        const auto part = left.substr(0, end);
        if (part.empty() || part == "." || part == ".." ||
            part.find('\0') != std::string_view::npos) {
            refuse(text, "each part of it has to be a name");
        }
        check(text, part);
        glob.parts.emplace_back(part);
        more = end < left.size();
        left.remove_prefix(std::min(end + 1, left.size()));
    }
    return glob;
}

NamePatterns::Rename NamePatterns::rename_of(const std::string& from, const std::string& to) {
    Rename made;
    const auto star = from.find('*');
    const auto new_star = to.find('*');
    made.is_exact = star == std::string::npos;
    for (const auto& text : {from, to}) {
        const bool one = std::count(text.begin(), text.end(), '*') == (made.is_exact ? 0 : 1);
        if (!one) {
            refuse(from, "its new name has one * where it has one, and none where it has none");
        }
        if (!is_name(text) || text.find_first_of(std::string("/\0", 2)) != std::string::npos) {
            refuse(text, "it has to be a name, to be renamed or a new one");
        }
    }
    made.before = from.substr(0, star);
    made.new_before = to.substr(0, new_star);
    if (!made.is_exact) {
        made.behind = from.substr(star + 1);
        made.new_behind = to.substr(new_star + 1);
    }
    return made;
}

bool NamePatterns::matches(const Glob& glob, std::string_view above, std::string_view name,
                           bool is_directory) {
    if ((glob.directories && !is_directory) || !matches_part(glob.parts.back(), name)) {
        return false;
    }
    if (!glob.is_path) {
        return true;
    }
    for (std::size_t i = 0; i + 1 < glob.parts.size(); ++i) {
        const auto end = std::min(above.find('/'), above.size());
        if (above.empty() || !matches_part(glob.parts[i], above.substr(0, end))) {
            return false;
        }
        above.remove_prefix(std::min(end + 1, above.size()));
    }
    return above.empty();
}

bool NamePatterns::any(const std::vector<Glob>& globs, std::string_view above,
                       std::string_view name, bool is_directory) {
    return std::any_of(globs.begin(), globs.end(),
                       [&](const Glob& glob) { return matches(glob, above, name, is_directory); });
}

bool NamePatterns::hides(std::string_view above, std::string_view name, bool is_directory) const {
    return any(hide_, above, name, is_directory) && !any(show_, above, name, is_directory);
}

bool NamePatterns::is_by_path() const noexcept {
    const auto is_path = [](const Glob& glob) { return glob.is_path; };
    return std::any_of(hide_.begin(), hide_.end(), is_path) ||
           std::any_of(show_.begin(), show_.end(), is_path);
}

std::optional<std::string> NamePatterns::Rename::forth(std::string_view name) const {
    if (is_exact) {
        return name == before ? std::optional(new_before) : std::nullopt;
    }
    if (name.size() < before.size() + behind.size() || !name.starts_with(before) ||
        !name.ends_with(behind)) {
        return std::nullopt;
    }
    name.remove_prefix(before.size());
    name.remove_suffix(behind.size());
    auto made = new_before + std::string(name) + new_behind;
    return is_name(made) ? std::optional(std::move(made)) : std::nullopt;
}

std::optional<std::string> NamePatterns::Rename::back(std::string_view name) const {
    return Rename{new_before, new_behind, before, behind, is_exact}.forth(name);
}

std::string NamePatterns::shown(std::string_view name) const {
    for (const auto& rename : renames_) {
        if (auto made = rename.forth(name)) {
            return *std::move(made);
        }
    }
    return std::string(name);
}

NamePatterns::Texts NamePatterns::originals(std::string_view name) const {
    Texts found;
    if (shown(name) == name) {
        found.emplace_back(name);
    }
    for (const auto& rename : renames_) {
        auto one = rename.back(name);
        if (one && shown(*one) == name &&
            std::find(found.begin(), found.end(), *one) == found.end()) {
            found.push_back(*std::move(one));
        }
    }
    return found;
}

}  // namespace zc
