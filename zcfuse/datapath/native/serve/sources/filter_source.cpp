#include "serve/sources/filter_source.hpp"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace zc {

namespace {

constexpr std::uint32_t kAnyType = 0;
constexpr unsigned kMostPaths = 64;  // with more, control answers

bool is_missing(int error) noexcept {
    return error == -ENOENT || error == -ENAMETOOLONG;
}

std::string joined(const std::string& above, std::string_view name) {
    std::string path(above);
    return path.append(above.empty() ? "" : "/").append(name);
}

void show(struct ::statx& status) noexcept {
    if (S_ISDIR(status.stx_mode)) {
        status.stx_nlink = 1;
    }
}

}  // namespace

class FilterSource::Names final : public Listing {
  public:
    Names(std::shared_ptr<const FilterSource> source, SourceDirectory::Ref directory,
          std::string path, std::unique_ptr<Listing> inner) noexcept
        : source_(std::move(source)),
          directory_(std::move(directory)),
          path_(std::move(path)),
          inner_(std::move(inner)) {}

    int seek(std::uint64_t position) override {
        position_ = position;
        return inner_->seek(position);
    }

    int peek(Entry& into) override {
        for (;;) {
            const int more = inner_->peek(into);
            position_ = inner_->position();
            if (more != 1 || is_shown(into)) {
                return more;
            }
            inner_->skip();
        }
    }

    void skip() override {
        inner_->skip();
        position_ = inner_->position();
    }
    bool must_gather(std::uint64_t position) const noexcept override {
        return inner_->must_gather(position);
    }
    int gather(Effort effort, std::uint32_t uid) override { return inner_->gather(effort, uid); }
    bool can_resume() const noexcept override { return inner_->can_resume(); }
    bool can_rewind() const noexcept override { return inner_->can_rewind(); }
    bool found(Found& into) override {
        const bool known = inner_->found(into);
        show(into.status);
        return known;
    }

  private:
    // Gives the entry its new name.
    bool is_shown(Entry& entry) {
        const auto& patterns = *source_->patterns_;
        const auto name = entry.text();
        if (name == "." || name == "..") {
            return true;
        }
        if (patterns.hides(path_, name, is_directory(entry))) {
            return false;
        }
        if (!patterns.renames()) {
            return true;
        }
        auto shown = patterns.shown(name);
        if (shown != name && is_taken(shown, name)) {
            return false;
        }
        name_ = std::move(shown);
        entry.name = name_.c_str();
        entry.length = name_.size();
        return true;
    }

    bool is_directory(const Entry& entry) const {
        if (entry.type != DT_UNKNOWN) {
            return entry.type == DT_DIR;
        }
        Found found;
        directory_->find(std::string(entry.text()).c_str(), found);
        return S_ISDIR(found.status.stx_mode);
    }

    // Whether another name that is there is shown as this one.
    bool is_taken(const std::string& shown, std::string_view name) const {
        for (const auto& other : source_->patterns_->originals(shown)) {
            if (other == name) {
                return false;
            }
            Found found;
            const bool there = !is_missing(directory_->find(other.c_str(), found));
            if (there && !source_->patterns_->hides(path_, other, S_ISDIR(found.status.stx_mode))) {
                return true;
            }
        }
        return false;
    }

    const std::shared_ptr<const FilterSource> source_;
    const SourceDirectory::Ref directory_;
    const std::string path_;
    const std::unique_ptr<Listing> inner_;
    std::string name_;  // of the entry at hand
};

class FilterSource::At final : public SourceDirectory {
  public:
    At(std::shared_ptr<const FilterSource> source, Ref inner, std::string path) noexcept
        : source_(std::move(source)), inner_(std::move(inner)), path_(std::move(path)) {}

    int find(const char* name, Found& into) const override {
        const int error = with_original(name, kAnyType, [&](const char* one) {
            const int looked = inner_->find(one, into);
            const bool hidden = (looked == 0 || looked == kUpcall) && *one != '\0' &&
                                hides(one, S_ISDIR(into.status.stx_mode));
            return hidden ? -ENOENT : looked;
        });
        show(into.status);
        return error;
    }

    sys::Remembered remembered(const char* name) const override {
        auto seen = sys::Remembered::nothing;
        with_original(name, kAnyType, [&](const char* one) {
            seen = inner_->remembered(one);
            return seen == sys::Remembered::nothing ? -ENOENT : 0;
        });
        return seen;
    }

    int enter(std::string_view path, Ref& into) const override {
        auto at = std::make_shared<const At>(source_, inner_, path_);
        const int error = for_each_name(path, [&](std::string_view name) {
            const auto above = at;
            return above->step(std::string(name), at);
        });
        if (error == 0) {
            into = std::move(at);
        }
        return error;
    }

    int enter_to(std::string_view path, const Identity& wanted, Ref& into) const override {
        Search search{wanted};
        return search_to("", path_, path, search, into);
    }

    Ref seen_by(std::uint32_t uid) const override {
        auto own = inner_->seen_by(uid);
        return own ? std::make_shared<const At>(source_, std::move(own), path_) : nullptr;
    }

    int status(const char* name, const Identity& wanted, struct ::statx& into) const override {
        const int error = with_original(
            name, wanted.type, [&](const char* one) { return inner_->status(one, wanted, into); });
        show(into);
        return error;
    }

    int open(const char* name, const Identity& wanted, Opened& into) const override {
        return with_original(name, wanted.type,
                             [&](const char* one) { return inner_->open(one, wanted, into); });
    }

    int reopen(const char* name, const Identity& wanted, struct ::statx& into) const override {
        return with_original(name, wanted.type,
                             [&](const char* one) { return inner_->reopen(one, wanted, into); });
    }

    int read_link(const char* name, const Identity& wanted, std::string& into) const override {
        return with_original(name, wanted.type,
                             [&](const char* one) { return inner_->read_link(one, wanted, into); });
    }

    int get_xattr(const char* name, const Identity& wanted, const char* attribute,
                  Bytes& into) const override {
        return with_original(name, wanted.type, [&](const char* one) {
            return inner_->get_xattr(one, wanted, attribute, into);
        });
    }

    int list_xattrs(const char* name, const Identity& wanted, Bytes& into) const override {
        return with_original(name, wanted.type, [&](const char* one) {
            return inner_->list_xattrs(one, wanted, into);
        });
    }

    int list(std::unique_ptr<Listing>& into, std::vector<struct ::statx>& versions) const override {
        std::unique_ptr<Listing> inner;
        const int error = inner_->list(inner, versions);
        if (error == 0) {
            into = std::make_unique<Names>(source_, inner_, path_, std::move(inner));
        }
        return error;
    }

    int marks(const char* name, Marks& into) const override {
        return with_original(name, kAnyType,
                             [&](const char* one) { return inner_->marks(one, into); });
    }

  private:
    struct Search {
        const Identity& wanted;
        unsigned left = kMostPaths;
    };

    // New names may stand for several paths beneath. Tries each until one leads to the directory
    // that is wanted. `before` is its path so far from this directory, `at` that from the root of
    // the patterns, and `path` is still to go by the names that are shown.
    int search_to(const std::string& before, const std::string& at, std::string_view path,
                  Search& search, Ref& into) const {
        if (search.left == 0) {
            return kUpcall;
        }
        if (path.empty()) {
            --search.left;
            return reach(before, at, search.wanted, into);
        }
        const auto name = path.substr(0, path.find('/'));
        path.remove_prefix(std::min(name.size() + 1, path.size()));
        const auto& patterns = *source_->patterns_;
        int error = -ENOENT;
        for (const auto& one : patterns.originals(name)) {
            const int tried =
                patterns.hides(at, one, true)
                    ? -ENOENT
                    : search_to(joined(before, one), joined(at, one), path, search, into);
            if (tried == 0) {
                return 0;
            }
            error = error == kUpcall || is_missing(tried) ? error : tried;
        }
        return error;
    }

    int reach(const std::string& path, const std::string& at, const Identity& wanted,
              Ref& into) const {
        Ref opened;
        Found found;
        int error = inner_->enter_to(path, wanted, opened);
        if (error == 0 && source_->patterns_->renames()) {
            error = opened->find("", found);
            error = error == 0 && found.identity != wanted ? -ESTALE : error;
        }
        if (error == 0) {
            into = std::make_shared<const At>(source_, std::move(opened), at);
        }
        return error;
    }

    bool hides(std::string_view name, bool is_directory) const {
        return source_->patterns_->hides(path_, name, is_directory);
    }

    // Asks for the name that is shown as this one. With kAnyType the caller looks whether it is
    // hidden, unless that does not depend on the type.
    template <typename Ask>
    int with_original(const char* name, std::uint32_t type, Ask ask) const {
        if (*name == '\0') {
            return ask(name);
        }
        const auto try_one = [&](const char* one) {
            const bool hidden = type != kAnyType ? hides(one, type == S_IFDIR)
                                                 : hides(one, false) && hides(one, true);
            return hidden ? -ENOENT : ask(one);
        };
        if (!source_->patterns_->renames()) {
            return try_one(name);
        }
        int error = -ENOENT;
        for (const auto& one : source_->patterns_->originals(name)) {
            const int tried = try_one(one.c_str());
            // Another name may be the file: this one was hidden by its type, or is another user's.
            if (type != kAnyType && (tried == kUpcall || tried == -ESTALE)) {
                error = error == kUpcall ? error : tried;
                continue;
            }
            if (!is_missing(tried)) {
                return error == kUpcall && tried != 0 ? kUpcall : tried;
            }
        }
        return error;
    }

    int step(const std::string& name, std::shared_ptr<const At>& into) const {
        return with_original(name.c_str(), S_IFDIR, [&](const char* one) {
            Ref opened;
            const int error = inner_->enter(one, opened);
            if (error == 0) {
                into = std::make_shared<const At>(source_, std::move(opened), joined(path_, one));
            }
            return error;
        });
    }

    const std::shared_ptr<const FilterSource> source_;
    const Ref inner_;
    const std::string path_;  // from the root of the patterns, by the names beneath
};

std::shared_ptr<const FilterSource> FilterSource::make(std::shared_ptr<const Source> inner,
                                                       std::shared_ptr<const NamePatterns> patterns,
                                                       std::string above) {
    return std::shared_ptr<const FilterSource>(
        new FilterSource(std::move(inner), std::move(patterns), std::move(above)));
}

SourceDirectory::Ref FilterSource::root() const {
    return std::make_shared<const At>(shared_from_this(), inner_->root(), above_);
}

}  // namespace zc
