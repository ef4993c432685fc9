#include "bindings/layers.hpp"

#include <sys/sysmacros.h>

#include <cerrno>
#include <cstddef>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "bindings/directories.hpp"
#include "serve/sources/overlay_search.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace zc::bindings {

namespace {

// A directory of one of Python's layers, for one search, by the thread that has the GIL. Exceptions
// of Python pass through the search, except those for missing names.
class PythonDirectory final : public SourceDirectory {
  public:
    // `directory`: a LayerDirectory. `entry`: the LayerEntry of it; None for a part to begin at.
    PythonDirectory(nb::object directory, nb::object entry)
        : directory_(std::move(directory)), entry_(std::move(entry)) {}

    const nb::object& itself() const noexcept { return entry_; }
    // Each name is looked up once.
    const nb::object& entry(const char* name) const { return entries_.at(name); }

    int find(const char* name, Found& into) const override {
        if (*name == '\0') {
            into.status.stx_mode = S_IFDIR;
            return 0;
        }
        if (const int error = look(name); error != 0) {
            return error;
        }
        const auto attributes = entry(name).attr("attributes");
        const auto rdev = nb::cast<std::uint64_t>(attributes.attr("rdev"));
        into.status.stx_mode = nb::cast<std::uint16_t>(attributes.attr("mode"));
        into.status.stx_size = nb::cast<std::uint64_t>(attributes.attr("size"));
        into.status.stx_rdev_major = ::gnu_dev_major(rdev);
        into.status.stx_rdev_minor = ::gnu_dev_minor(rdev);
        return 0;
    }

    int enter(std::string_view path, Ref& into) const override {
        const std::string name(path);
        Found found;
        if (const int error = find(name.c_str(), found); error != 0) {
            return error;
        }
        if (!S_ISDIR(found.status.stx_mode)) {
            return -ENOTDIR;
        }
        const auto& below = entry(name.c_str());
        into = std::make_shared<const PythonDirectory>(below.attr("directory")(), below);
        return 0;
    }

    int marks(const char* name, Marks& into) const override {
        if (const int error = look(name); error != 0) {
            return error;
        }
        const auto at = entry(name).attr("at");
        if (at.is_none()) {
            return 0;  // a tree has none
        }
        const auto own_name = nb::cast<nb::bytes>(entry(name).attr("own_name"));
        const auto directory = nb::cast<const DirectoryHandle&>(at).at;
        const nb::gil_scoped_release released;
        return directory->marks(own_name.c_str(), into);
    }

    // A search never calls these.
    int status(const char*, const Identity&, struct ::statx&) const override { return kUpcall; }
    int open(const char*, const Identity&, Opened&) const override { return kUpcall; }
    int reopen(const char*, const Identity&, struct ::statx&) const override { return kUpcall; }
    int read_link(const char*, const Identity&, std::string&) const override { return kUpcall; }
    int get_xattr(const char*, const Identity&, const char*, Bytes&) const override {
        return kUpcall;
    }
    int list_xattrs(const char*, const Identity&, Bytes&) const override { return kUpcall; }
    int list(std::unique_ptr<Listing>&, std::vector<struct ::statx>&) const override {
        return kUpcall;
    }

  private:
    int look(const std::string& name) const {
        if (entries_.contains(name)) {
            return 0;
        }
        try {
            entries_[name] = directory_.attr("look")(nb::bytes(name.data(), name.size()));
        } catch (nb::python_error& error) {
            if (!error.matches(PyExc_OSError)) {
                throw;
            }
            const auto number = error.value().attr("errno");
            const int code = nb::isinstance<nb::int_>(number) ? -nb::cast<int>(number) : 0;
            if (!means_missing(code)) {
                throw;
            }
            return code;
        }
        return 0;
    }

    const nb::object directory_;
    const nb::object entry_;
    mutable std::map<std::string, nb::object> entries_;
};

std::vector<LayerPart> parts_of(const nb::iterable& directories) {
    std::vector<LayerPart> parts;
    for (nb::handle one : directories) {
        const auto layer = nb::cast<std::size_t>(one.attr("layer").attr("index"));
        parts.push_back(
            {layer, std::make_shared<const PythonDirectory>(nb::borrow(one), nb::none())});
    }
    return parts;
}

const PythonDirectory& python(const SourceDirectory& directory) noexcept {
    return static_cast<const PythonDirectory&>(directory);
}

// False where the search was refused.
bool require(int error) {
    if (error < 0) {
        throw std::system_error(-error, std::generic_category(), "a name in layers");
    }
    return error == 0;
}

nb::tuple search_layers(const nb::iterable& directories, const nb::callable& roots_below,
                        const nb::bytes& name) {
    const auto parts = parts_of(directories);
    OverlaySearch search(
        [&](std::size_t layer) { return parts_of(nb::cast<nb::iterable>(roots_below(layer))); },
        true, name.c_str());
    std::size_t at = 0;
    Found found;
    require(find_topmost(parts, 0, name.c_str(), at, found));
    const auto lower = std::span(parts).subspan(at);
    nb::list entries;
    entries.append(python(*lower.front().directory).entry(name.c_str()));
    nb::object data = nb::none();
    if (is_device_whiteout(found.status)) {
        require(-ENOENT);
    } else if (S_ISDIR(found.status.stx_mode)) {
        std::vector<LayerPart> merged;
        require(search.find_directory(lower, std::numeric_limits<std::size_t>::max(), merged));
        for (std::size_t i = 1; i < merged.size(); ++i) {
            entries.append(python(*merged[i].directory).itself());
        }
    } else if (S_ISREG(found.status.stx_mode)) {
        Marks marks;
        require(read_file_marks(lower.front(), name.c_str(), found, marks));
        DataFile file;
        if (marks.metacopy && require(search.find_data(lower, marks, file))) {
            data = python(*file.directory).entry(file.name.c_str());
        }
    }
    const auto refusal = text_of(search.refusal());
    return nb::make_tuple(nb::tuple(entries), data, nb::str(refusal.data(), refusal.size()));
}

}  // namespace

void add_layers(nb::module_& module) {
    module.def("search_layers", &search_layers, "parts"_a, "roots_below"_a, "name"_a);
}

}  // namespace zc::bindings
