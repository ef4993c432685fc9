// Which names of a tree a filter shows, and as what: globs that hide or show, and new names.
//
// A glob has `*`, `?` and `[...]`, none of which matches a `/`; `\` takes its meaning from the
// character behind it. One without a `/` is for a name at any depth, one with a `/` for a path from
// the root. A `/` at its end is for directories only. A `show` glob wins over every `hide` glob.
//
// A new name is for one exact name, or for all that match a pattern with one `*`, which stands for
// the same text in both. The first that fits counts. Of several names that would be shown as one, a
// name that keeps its own is first, then the order is that of the new names.
//
// Threads: any; nothing changes once it is made.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zc {

class NamePatterns {
  public:
    using Texts = std::vector<std::string>;
    using Renames = std::vector<std::pair<std::string, std::string>>;

    // Throws std::invalid_argument, whose message names the pattern.
    NamePatterns(const Texts& hide, const Texts& show, const Renames& rename);

    // Whether a name is hidden, by the name and the path that the tree has. `above` is the path of
    // its directory, "" for the root.
    bool hides(std::string_view above, std::string_view name, bool is_directory) const;
    bool renames() const noexcept { return !renames_.empty(); }
    // Whether a glob compares paths.
    bool is_by_path() const noexcept;
    // As what a name is shown.
    std::string shown(std::string_view name) const;
    // The names that would be shown as `name`, the one that counts first.
    Texts originals(std::string_view name) const;

  private:
    struct Glob {
        Texts parts;           // one for each component of a path
        bool is_path = false;  // from the root
        bool directories = false;
    };
    struct Rename {
        std::string before;  // in the old name: what is before the `*`, or all
        std::string behind;
        std::string new_before;
        std::string new_behind;
        bool is_exact = true;
        std::optional<std::string> forth(std::string_view name) const;
        std::optional<std::string> back(std::string_view name) const;
    };
    static Glob glob_of(const std::string& text);
    static Rename rename_of(const std::string& from, const std::string& to);
    static bool matches(const Glob& glob, std::string_view above, std::string_view name,
                        bool is_directory);
    static bool any(const std::vector<Glob>& globs, std::string_view above, std::string_view name,
                    bool is_directory);

    std::vector<Glob> hide_;
    std::vector<Glob> show_;
    std::vector<Rename> renames_;
};

}  // namespace zc
