#include "serve/sources/overlay_search.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace zc {

namespace {

// A file behind another mount counts as there.
int is_there(const SourceDirectory& directory, const std::string& name) {
    Found found;
    const int error = directory.find(name.c_str(), found);
    return means_missing(error) ? 0 : error < 0 ? error : 1;
}

std::vector<std::string> names_of(std::string_view path) {
    std::vector<std::string> names;
    while (!path.empty()) {
        path.remove_prefix(1);  // its slash
        const auto end = std::min(path.find('/'), path.size());
        names.emplace_back(path.substr(0, end));
        path.remove_prefix(end);
    }
    return names;
}

// 1 or 0, or -errno: whether a `.wh.` name hides the name in the layers below.
int is_covered(const SourceDirectory& directory, const char* name) {
    return is_there(directory, whiteout_of(name));
}

}  // namespace

bool means_missing(int error) noexcept {
    return error == -ENOENT || error == -ENAMETOOLONG;
}

// Asks for the `.wh.` names only once a layer had the name, because most missing names are missing
// in all layers.
int find_topmost(std::span<const LayerPart> parts, std::size_t first, const char* name,
                 std::size_t& part, Found& into) {
    int error = -ENOENT;
    for (part = first; part < parts.size(); ++part) {
        error = parts[part].directory->find(name, into);
        if (means_missing(error)) {
            continue;
        }
        for (const auto& above : parts.first(part)) {
            if (const int covered = is_covered(*above.directory, name); covered != 0) {
                return covered < 0 ? covered : -ENOENT;
            }
        }
        return error;
    }
    return error;
}

int read_file_marks(const LayerPart& part, const char* name, const Found& file, Marks& into) {
    if (const int error = part.directory->marks(name, into); error < 0) {
        return error;
    }
    if (into.whiteout && file.status.stx_size == 0) {
        return -ENOENT;
    }
    return is_metacopy(file.identity) ? kUpcall : 0;
}

int OverlaySearch::find_directory(std::span<const LayerPart> parts, std::size_t kept,
                                  std::vector<LayerPart>& into) {
    const int error = descend(parts, [&](const LayerPart& part) {
        SourceDirectory::Ref opened;
        const int failed = enter_all(part, walked_.size(), opened);
        if (failed == 0 && opened) {
            top_redirect_ = into.empty() ? redirect_ : top_redirect_;
            into.push_back({part.layer, into.size() < kept ? std::move(opened) : nullptr});
        }
        return failed;
    });
    if (error != 0) {
        return error;
    }
    return into.empty() ? error_ : followed_ && !follows_ ? kUpcall : 0;
}

int OverlaySearch::find_data(std::span<const LayerPart> parts, const Marks& metacopy,
                             DataFile& into) {
    if (!follows_) {
        return kUpcall;
    }
    if (const int error = follow(metacopy, 0); error != 0) {
        return error;
    }
    const auto layer = parts.front().layer;
    parts = parts.subspan(1);
    if (from_roots_) {
        roots_ = roots_below_(layer);
        parts = roots_;
    }
    const int error = descend(parts, [&](const LayerPart& part) {
        SourceDirectory::Ref above;
        const int failed = enter_all(part, walked_.size() - 1, above);
        if (failed != 0 || !above) {
            return failed;
        }
        into.directory = std::move(above);
        into.name = walked_.back();
        return judge_data(*into.directory, into);
    });
    if (error != 0 || has_data_) {
        return error;
    }
    refusal_ = Refusal::no_data;
    return kUpcall;
}

// Takes part after part, and those of the roots once a path from there is known.
template <typename Walk>
int OverlaySearch::descend(std::span<const LayerPart> parts, Walk walk) {
    while (!parts.empty() && !stopped_) {
        const auto& part = parts.front();
        parts = parts.subspan(1);
        const bool began_at_roots = from_roots_;
        lowest_ = parts.empty();
        walked_ = names_;
        if (const int error = walk(part); error != 0) {
            return error;
        }
        if (from_roots_ && !began_at_roots) {
            roots_ = roots_below_(part.layer);
            parts = roots_;
        }
    }
    return 0;
}

// Leaves `into` empty where the layer shows nothing there.
int OverlaySearch::enter_all(const LayerPart& part, std::size_t count, SourceDirectory::Ref& into) {
    auto at = part.directory;
    for (std::size_t depth = 0; depth < count; ++depth) {
        SourceDirectory::Ref next;
        if (const int error = enter(at, depth, next); error != 0 || !next) {
            return error;
        }
        at = std::move(next);
    }
    into = std::move(at);
    return 0;
}

int OverlaySearch::enter(const SourceDirectory::Ref& from, std::size_t depth,
                         SourceDirectory::Ref& into) {
    const auto& name = walked_[depth];
    SourceDirectory::Ref opened;
    int error = from->enter(name, opened);
    if (means_missing(error)) {
        return missing(*from, name);
    }
    if (error == -ENOTDIR || error == -ELOOP) {
        stopped_ = true;  // a whiteout, or a file that is in the way
        error_ = -ENOTDIR;
        return 0;
    }
    if (error == 0) {
        Found found;  // behind another mount it is control's
        error = opened->find("", found);
    }
    error = error == 0 ? judge(*from, depth, *opened) : error;
    if (error == 0) {
        into = std::move(opened);
    }
    return error;
}

int OverlaySearch::missing(const SourceDirectory& directory, const std::string& name) {
    const int covered = lowest_ ? 0 : is_covered(directory, name.c_str());
    stopped_ = stopped_ || covered == 1;
    return covered < 0 ? covered : 0;
}

int OverlaySearch::judge(const SourceDirectory& above, std::size_t depth,
                         const SourceDirectory& opened) {
    const auto& name = walked_[depth];
    Marks marks;
    if (const int error = above.marks(name.c_str(), marks); error < 0) {
        return error;
    }
    if (lowest_ && !marks.redirect) {
        return 0;  // nothing is left that it could hide
    }
    int hides = marks.opaque ? 1 : is_there(opened, kOpaqueName);
    hides = hides == 0 ? is_covered(above, name.c_str()) : hides;
    if (hides < 0) {
        return hides;
    }
    if (hides == 1) {
        stopped_ = true;
        return 0;
    }
    return follow(marks, walked_.size() - depth - 1);
}

int OverlaySearch::judge_data(const SourceDirectory& directory, DataFile& into) {
    const int error = directory.find(into.name.c_str(), into.found);
    if (means_missing(error)) {
        return missing(directory, into.name);
    }
    if (error != 0) {
        return error;
    }
    if (!S_ISREG(into.found.status.stx_mode)) {
        stopped_ = true;
        return 0;
    }
    Marks marks;
    if (const int failed = directory.marks(into.name.c_str(), marks); failed < 0) {
        return failed;
    }
    const bool whiteout = marks.whiteout && into.found.status.stx_size == 0;
    if (marks.metacopy && !whiteout) {
        return follow(marks, 0);
    }
    stopped_ = true;
    has_data_ = !whiteout;
    return 0;
}

// The marks are those of a name with `after` names behind it. A redirect above it may have changed
// the names before it.
int OverlaySearch::follow(const Marks& marks, std::size_t after) {
    if (marks.refused != Refusal::none) {
        refusal_ = marks.refused;
        return kUpcall;
    }
    if (!marks.redirect) {
        return 0;
    }
    followed_ = true;
    redirect_ = marks.leads_to;
    const auto rest = names_.end() - static_cast<std::ptrdiff_t>(after);
    if (marks.leads_to.front() != '/') {
        *(rest - 1) = marks.leads_to;
        return 0;
    }
    auto names = names_of(marks.leads_to);
    names.insert(names.end(), rest, names_.end());
    names_ = std::move(names);
    from_roots_ = true;
    // A directory above it may have been opaque: this way leads elsewhere.
    stopped_ = false;
    lowest_ = false;
    return 0;
}

}  // namespace zc
