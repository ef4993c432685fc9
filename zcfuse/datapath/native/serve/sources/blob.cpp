#include "serve/sources/blob.hpp"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <utility>

#include "serve/constants.hpp"
#include "serve/mtime.hpp"
#include "serve/sources/hashing.hpp"
#include "sys/files.hpp"

namespace zc {

namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kLargestFile = ~std::uint64_t{0} >> 1;
constexpr unsigned kPermissions = 0777;
constexpr unsigned kOwners = 0700;
constexpr unsigned kDefaultMode = 0444;

std::int64_t nanoseconds(const statx_timestamp& time) noexcept {
    return time.tv_sec * kSecond + time.tv_nsec;
}

}  // namespace

int Blob::look(const Terms& terms, BackingPaths& paths) {
    opens_ = false;
    return evaluate(terms, paths);
}

int Blob::open(const Terms& terms, BackingPaths& paths) {
    opens_ = true;
    return evaluate(terms, paths);
}

int Blob::evaluate(const Terms& terms, BackingPaths& paths) {
    sources_.clear();
    Runs found;
    std::size_t at = 0;
    const int error = runs_of(terms, at, paths, found);
    runs_ = std::move(found.runs);
    return error != 0 ? error : compare_acls(&paths);
}

int Blob::Source::acl(BackingPaths* paths, std::string& into) const {
    return file != nullptr ? acl_of(file->get(), into) : paths->acl(path, into);
}

// With a single file there is nothing to compare, so its ACL is not read.
int Blob::compare_acls(BackingPaths* paths) {
    acls_differ_ = false;
    const auto files = std::count_if(sources_.begin(), sources_.end(),
                                     [](const Source& one) { return !one.is_memory; });
    std::optional<std::string> first;
    for (const auto& source : sources_) {
        if (files < 2 || source.is_memory) {
            continue;
        }
        std::string acl;
        if (const int error = source.acl(paths, acl); error != 0) {
            return error;
        }
        acls_differ_ = acls_differ_ || (first && *first != acl);
        first = std::move(acl);
    }
    return 0;
}

int Blob::acl(BackingPaths& paths, std::string& into) const {
    const auto first = std::find_if(sources_.begin(), sources_.end(),
                                    [](const Source& one) { return !one.is_memory; });
    return first == sources_.end() || acls_differ_ ? 0 : first->acl(&paths, into);
}

int Blob::runs_of(const Terms& terms, std::size_t& at, BackingPaths& paths, Runs& into) {
    const auto& term = terms[at++];
    switch (term.kind) {
        case BlobTerm::Kind::file: {
            int source = -1;
            if (const int error = source_of(term, paths, source); error != 0) {
                return error;
            }
            into.runs.push_back(
                {source, 0, sources_[static_cast<std::size_t>(source)].status.stx_size, true});
            return 0;
        }
        case BlobTerm::Kind::memory:
            into.runs.push_back({memory_of(term), term.offset, term.length, term.whole});
            return 0;
        case BlobTerm::Kind::zeros:
            if (term.length > 0) {
                into.runs.push_back({-1, 0, term.length, false});
            }
            return 0;
        case BlobTerm::Kind::slice: {
            const int error = runs_of(terms, at, paths, into);
            cut(into, term.offset, term.length);
            return error;
        }
        case BlobTerm::Kind::concat:
            return term.count == 1 ? runs_of(terms, at, paths, into)
                                   : join(terms, --at, paths, into);
    }
    return -EINVAL;
}

// The parts' runs, as far as the first part that ends sooner than it should.
int Blob::join(const Terms& terms, std::size_t& at, BackingPaths& paths, Runs& into) {
    const auto count = terms[at++].count;
    std::uint64_t size = 0;
    for (std::uint32_t part = 0; part < count; ++part) {
        if (!into.complete) {
            skip(terms, at);
            continue;
        }
        Runs found;
        if (const int error = runs_of(terms, at, paths, found); error != 0) {
            return error;
        }
        for (const auto& run : found.runs) {
            if (run.length > kLargestFile - size) {
                return -EOVERFLOW;
            }
            size += run.length;
            append(into.runs, run);
        }
        into.complete = found.complete;
        const bool grows = found.complete && !found.runs.empty() && found.runs.back().open_ended;
        if (part + 1 == count && grows) {
            if (found.runs.back().length == 0) {
                into.runs.push_back(found.runs.back());  // an empty file, which may grow
            }
            into.runs.back().open_ended = true;
        }
    }
    return 0;
}

void Blob::skip(const Terms& terms, std::size_t& at) noexcept {
    for (std::size_t left = 1; left > 0; --left) {
        const auto& term = terms[at++];
        left += term.kind == BlobTerm::Kind::slice    ? 1
                : term.kind == BlobTerm::Kind::concat ? term.count
                                                      : 0;
    }
}

void Blob::append(std::vector<Run>& runs, const Run& run) {
    if (!runs.empty() && runs.back().source == run.source &&
        (run.source < 0 || runs.back().offset + runs.back().length == run.offset)) {
        runs.back().length += run.length;
        runs.back().open_ended = false;
    } else if (run.length > 0) {
        runs.push_back({run.source, run.offset, run.length, false});
    }
}

void Blob::cut(Runs& runs, std::uint64_t offset, std::uint64_t length) {
    const bool to_the_end = length == kWholeFile;
    if (offset == 0 && to_the_end) {
        return;
    }
    std::vector<Run> found;
    for (const auto& run : runs.runs) {
        if (length == 0) {
            break;
        }
        if (offset >= run.length) {
            offset -= run.length;
            continue;
        }
        const auto size = std::min(run.length - offset, length);
        found.push_back({run.source, run.offset + offset, size, run.open_ended && to_the_end});
        offset = 0;
        length -= to_the_end ? 0 : size;
    }
    runs.runs = std::move(found);
    runs.complete = to_the_end ? runs.complete : length == 0;
}

int Blob::source_of(const BlobTerm& term, BackingPaths& paths, int& into) {
    const auto same = [&term](const Source& one) {
        return !one.is_memory && one.path.directory_id == term.path.directory_id &&
               one.path.name == term.path.name;
    };
    const auto known = std::find_if(sources_.begin(), sources_.end(), same);
    into = static_cast<int>(known - sources_.begin());
    if (known != sources_.end()) {
        return 0;
    }
    Source made;
    made.path = term.path;
    if (!opens_) {
        const int error = paths.look(term.path, made.status);
        sources_.push_back(std::move(made));
        return error;
    }
    auto file = std::make_shared<sys::UniqueFd>();
    const int error = paths.open(term.path, *file, made.status);
    made.file = std::move(file);
    made.id = next_file_id();
    sources_.push_back(std::move(made));
    return error;
}

int Blob::memory_of(const BlobTerm& term) {
    for (std::size_t i = 0; i < sources_.size(); ++i) {
        if (sources_[i].file == term.memory) {
            return static_cast<int>(i);
        }
    }
    Source made;
    made.file = term.memory;
    made.id = next_file_id();
    made.is_memory = true;
    made.status.stx_size = term.offset + term.length;
    sources_.push_back(std::move(made));
    return static_cast<int>(sources_.size() - 1);
}

// A file that is shorter by now ends the whole; one that is open at its end has grown, perhaps.
int Blob::look_at_open(const Terms& terms, const FileLease& lease) {
    sources_.clear();
    runs_.clear();
    const auto is_memory = [&terms](const std::shared_ptr<const sys::UniqueFd>& file) {
        return std::any_of(terms.begin(), terms.end(),
                           [&file](const BlobTerm& term) { return term.memory == file; });
    };
    bool there = true;
    for (const auto& extent : lease.extents()) {
        if (extent.hole) {
            runs_.push_back({-1, 0, there ? extent.length : 0, false});
            continue;
        }
        const auto known =
            std::find_if(sources_.begin(), sources_.end(),
                         [&extent](const Source& one) { return one.file == extent.file; });
        const auto source = known - sources_.begin();
        if (known == sources_.end()) {
            sources_.push_back({{}, extent.file, extent.id, {}, is_memory(extent.file)});
            auto& status = sources_.back().status;
            if (const int error = sys::status_of(extent.file->get(), "", false, status);
                error != 0) {
                return error;
            }
        }
        const std::uint64_t end = sources_[static_cast<std::size_t>(source)].status.stx_size;
        const std::uint64_t left = end > extent.offset ? end - extent.offset : 0;
        const std::uint64_t length = std::min(extent.length, left);
        const bool open_ended = extent.length == kWholeFile;
        runs_.push_back({static_cast<int>(source), extent.offset, there ? length : 0, open_ended});
        there = there && (open_ended || length == extent.length);
    }
    return compare_acls(nullptr);
}

std::uint64_t Blob::stamp() const noexcept {
    std::uint64_t mixed = 1;
    for (const auto& source : sources_) {
        if (!source.is_memory) {
            const auto& status = source.status;
            mixed = mix(mixed, std::uint64_t{status.stx_dev_major} << 32 | status.stx_dev_minor);
            mixed = mix(mixed, status.stx_ino);
            mixed = mix(mixed, static_cast<std::uint64_t>(nanoseconds(status.stx_btime)));
        }
    }
    return mixed | 1;
}

std::uint64_t Blob::version() const noexcept {
    std::uint64_t mixed = 0;
    for (const auto& source : sources_) {
        if (!source.is_memory) {
            mixed = mix(mix(mixed, source.status.stx_size),
                        static_cast<std::uint64_t>(nanoseconds(source.status.stx_mtime)));
        }
    }
    return mixed;
}

std::uint64_t Blob::size() const noexcept {
    std::uint64_t sum = 0;
    for (const auto& run : runs_) {
        sum += run.length;
    }
    return sum;
}

std::uint64_t Blob::sectors() const noexcept {
    if (runs_.size() == 1 && runs_[0].open_ended && runs_[0].offset == 0 && runs_[0].source >= 0) {
        const auto& source = sources_[static_cast<std::size_t>(runs_[0].source)];
        if (!source.is_memory) {
            return source.status.stx_blocks;
        }
    }
    std::uint64_t sum = 0;
    for (const auto& run : runs_) {
        sum += run.source < 0 ? 0 : run.length / kSectorBytes + (run.length % kSectorBytes != 0);
    }
    return sum;
}

unsigned Blob::mode() const noexcept {
    unsigned mode = kPermissions;
    bool any = false;
    for (const auto& source : sources_) {
        if (!source.is_memory) {
            mode &= source.status.stx_mode;
            any = true;
        }
    }
    // One ACL cannot say who may read each of several files.
    return any ? mode & (acls_differ_ ? kOwners : kPermissions) : kDefaultMode;
}

Blob::Times Blob::times() const noexcept {
    Times found;
    for (const auto& source : sources_) {
        if (!source.is_memory) {
            const auto& status = source.status;
            found.accessed = std::max(found.accessed, nanoseconds(status.stx_atime));
            found.modified = std::max(found.modified, nanoseconds(status.stx_mtime));
            found.changed = std::max(found.changed, nanoseconds(status.stx_ctime));
        }
    }
    return found;
}

bool Blob::is_settled() const noexcept {
    return std::all_of(sources_.begin(), sources_.end(), [](const Source& one) {
        return one.is_memory || mtime_is_settled(one.status);
    });
}

std::vector<Extent> Blob::extents() const {
    std::vector<Extent> found;
    for (const auto& run : runs_) {
        if (run.source < 0) {
            found.push_back({hole_file(), next_file_id(), 0, run.length, true});
            continue;
        }
        const auto& source = sources_[static_cast<std::size_t>(run.source)];
        found.push_back(
            {source.file, source.id, run.offset, run.open_ended ? kWholeFile : run.length});
    }
    return found;
}

}  // namespace zc
