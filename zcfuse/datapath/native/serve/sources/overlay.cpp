#include "serve/sources/overlay.hpp"

#include <cerrno>

#include "serve/sources/layer_marks.hpp"
#include "serve/nodes/mirrors.hpp"

namespace zc::unions {

namespace {

bool is_missing(int error) noexcept {
    return error == -ENOENT || error == -ENAMETOOLONG;
}

// Looks at a directory of a layer that is a part; `last`: nothing of the layers below shows.
int judge_directory(const Directory& above, std::size_t part, const char* name, int opened,
                    bool& last) {
    Marks marks;
    if (const int error = read_marks(above.fd(part), name, marks); error < 0) {
        return error;
    }
    const int covered = marks.opaque ? 1 : is_covered_whole(opened);
    const int whiteout = covered == 0 ? is_covered(above.fd(part), name) : covered;
    if (whiteout < 0) {
        return whiteout;
    }
    last = whiteout == 1;
    return marks.redirect && !marks.opaque ? kHandUp : 0;
}

// Opens what one layer has of a directory.
int step_into(const Directory& above, std::size_t part, const char* name, std::vector<Part>& into,
              bool& last) {
    Part found{above.parts[part].layer, {}};
    int error = sys::open_beneath(above.fd(part), name, O_PATH | O_DIRECTORY, found.own);
    if (is_missing(error)) {
        const bool lowest = part + 1 == above.parts.size();
        const int covered = lowest ? 0 : is_covered(above.fd(part), name);
        last = covered == 1;
        return covered < 0 ? covered : 0;
    }
    if (error == -ENOTDIR || error == -ELOOP) {
        last = true;  // a whiteout, or a file that is in the way
        return into.empty() ? -ENOTDIR : 0;
    }
    struct ::statx status {};
    if (error == 0) {
        error = Mirrors::look_at(above.layer(part), found.own.get(), "", status);
    }
    if (error == 0) {
        error = judge_directory(above, part, name, found.own.get(), last);
    }
    if (error != 0) {
        return error == -EXDEV ? kHandUp : error;
    }
    into.push_back(std::move(found));
    return 0;
}

int judge_file(const Directory& directory, std::size_t part, const char* name,
               const struct ::statx& status) {
    Marks marks;
    if (const int error = read_marks(directory.fd(part), name, marks); error < 0) {
        return error;
    }
    if (marks.whiteout && status.stx_size == 0) {
        return -ENOENT;
    }
    return marks.metacopy ? kHandUp : 0;
}

// Whether a `.wh.` name in a layer above a part hides what the part has. Looked for only once a
// layer has the name: what is missing is mostly missing in all of them.
int is_covered_above(const Directory& directory, std::size_t part, const char* name) {
    for (std::size_t above = 0; above < part; ++above) {
        if (const int covered = is_covered(directory.fd(above), name); covered != 0) {
            return covered;
        }
    }
    return 0;
}

}  // namespace

int step(const Directory& directory, const char* name, std::vector<Part>& into, std::size_t first) {
    into.clear();
    bool last = false;
    for (std::size_t part = first; part < directory.parts.size() && !last; ++part) {
        if (const int error = step_into(directory, part, name, into, last); error != 0) {
            return error;
        }
    }
    return into.empty() ? -ENOENT : 0;
}

int find(const Directory& directory, const char* name, Shown& into) {
    int error = -ENOENT;
    for (std::size_t part = 0; part < directory.parts.size(); ++part) {
        error = Mirrors::look_at(directory.layer(part), directory.fd(part), name, into.status);
        if (is_missing(error)) {
            continue;
        }
        if (const int covered = is_covered_above(directory, part, name); covered != 0) {
            return covered < 0 ? covered : -ENOENT;
        }
        if (error != 0) {
            return error;
        }
        into.part = part;
        if (is_device_whiteout(into.status)) {
            return -ENOENT;
        }
        if (S_ISREG(into.status.stx_mode)) {
            return judge_file(directory, part, name, into.status);
        }
        // Its parts say how many links it shows, and whether control has to be asked.
        return S_ISDIR(into.status.stx_mode) ? step(directory, name, into.parts, part) : 0;
    }
    return error;
}

}  // namespace zc::unions
