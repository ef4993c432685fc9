// The part of LiveIndex that control changes it by.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

#include "serve/sources/hashing.hpp"
#include "serve/sources/live_index.hpp"

namespace zc {

namespace {

std::uint64_t mixed(std::uint64_t into, const GivenAttributes& given) noexcept {
    const std::uint64_t path = given.path ? static_cast<std::uint64_t>(*given.path) + 1 : 0;
    into = mix(mix(into, given.set), static_cast<std::uint64_t>(given.mtime_ns));
    into = mix(mix(into, given.mode), std::uint64_t{given.uid} << 32 | given.gid);
    return mix(into, path);
}

}  // namespace

LiveIndex::LiveIndex(const Shown& shown, std::int64_t trust_ms, std::size_t descriptors)
    : shown_(shown), paths_(trust_ms, descriptors) {
    IndexRecord root;
    root.kind = EntryKind::directory;
    root.serial = ++last_serial_;
    root.given = store_.keep_given({});
    store_.records.add(root);
    directories_[kRoot].time_ns = shown.made_ns;
}

void LiveIndex::set_root(const GivenAttributes& given, std::uint64_t key, std::int64_t time_ns,
                         bool asks) {
    const std::unique_lock guard(lock_);
    auto& root = store_.records[kRoot];
    root.key = mix(key, std::string_view("root"));
    root.given = store_.keep_given(given);
    directories_[kRoot].time_ns = time_ns;
    directories_[kRoot].asks = asks;
    handed_up_ += asks ? 1 : 0;
}

std::vector<std::uint32_t> LiveIndex::put(std::uint32_t directory, std::vector<Spec> specs,
                                          std::int64_t time_ns) {
    std::vector<std::uint32_t> numbers;
    numbers.reserve(specs.size());
    const std::unique_lock guard(lock_);
    if (!directories_.contains(directory)) {
        throw std::system_error(ESTALE, std::generic_category(), "an index's directory");
    }
    for (auto& spec : specs) {
        resolve(spec);
        numbers.push_back(put_one(directory, spec));
    }
    auto& changed = directories_.at(directory);
    changed.time_ns = time_ns;
    return numbers;
}

void LiveIndex::resolve(Spec& spec) {
    auto path = spec.paths.begin();
    auto memory = spec.memories.begin();
    for (auto& term : spec.terms) {
        if (term.kind == BlobTerm::Kind::file) {
            term.path = store_.path_of(*path++);
        } else if (term.kind == BlobTerm::Kind::memory) {
            term.memory = store_.memory_of(*memory++);
            if (term.memory == nullptr) {
                throw std::system_error(EMFILE, std::generic_category(), "copying a descriptor");
            }
        }
    }
}

std::uint64_t LiveIndex::key_of(const Spec& spec, std::uint64_t above) const {
    auto key = mix(mix(above, spec.name), static_cast<std::uint64_t>(spec.kind));
    key = mixed(mix(mix(key, spec.key), spec.target), spec.given);
    for (const auto& term : spec.terms) {
        key = mix(mix(key, static_cast<std::uint64_t>(term.kind)), term.count);
        if (term.kind == BlobTerm::Kind::file) {
            key = mix(mix(key, *term.path.directory), term.path.name);
        } else if (term.kind != BlobTerm::Kind::memory) {
            key = mix(mix(key, term.offset), term.length);
        }
    }
    return key;
}

std::uint32_t LiveIndex::put_one(std::uint32_t directory, Spec& spec) {
    const auto key =
        spec.kind == EntryKind::handed_up ? spec.ino : key_of(spec, store_.records[directory].key);
    if (const auto known = store_.find(directory, spec.name)) {
        const auto& record = store_.records[*known];
        if (record.key == key && record.kind == spec.kind && spec.kind != EntryKind::directory) {
            set_end(*known, spec);
            return *known;
        }
        detach(*known);
    }
    auto& above = directories_.at(directory);
    if (above.next_order == std::numeric_limits<std::uint32_t>::max()) {
        throw std::system_error(EOVERFLOW, std::generic_category(), "names of a directory");
    }
    IndexRecord record;
    record.key = key;
    record.serial = ++last_serial_;
    record.parent = directory;
    record.order = above.next_order++;
    record.name = store_.texts.add(spec.name);
    record.name_length = static_cast<std::uint16_t>(spec.name.size());
    record.given = store_.keep_given(spec.given);
    describe(record, spec);
    const auto number = store_.records.add(record);
    above.children.push_back(number);
    store_.link(number);
    if (spec.kind == EntryKind::blob && spec.time_ns != 0) {
        times_[number] = spec.time_ns;
    } else if (spec.kind == EntryKind::directory) {
        auto& made = directories_[number];
        made.time_ns = spec.time_ns;
        made.asks = spec.asks;
        handed_up_ += spec.asks ? 1 : 0;
    }
    set_end(number, spec);
    const bool shows_directory =
        spec.kind == EntryKind::directory ||
        (spec.kind == EntryKind::handed_up && S_ISDIR(static_cast<mode_t>(spec.type)));
    directories_.at(directory).directories += shows_directory ? 1 : 0;
    return number;
}

void LiveIndex::set_end(std::uint32_t number, const Spec& spec) {
    if (spec.valid_until_ms == 0) {
        ends_.erase(number);
    } else {
        ends_[number] = spec.valid_until_ms;
    }
}

void LiveIndex::describe(IndexRecord& record, Spec& spec) {
    record.kind = spec.kind;
    if (spec.kind == EntryKind::blob) {
        store_.keep_terms(record, spec.terms);
        return;
    }
    if (spec.kind == EntryKind::symlink) {
        record.place = store_.texts.add(spec.target);
        record.extra = static_cast<std::uint16_t>(spec.target.size());
    } else if (spec.kind == EntryKind::handed_up) {
        record.extra = static_cast<std::uint16_t>(spec.type);
        ++handed_up_;
    }
}

void LiveIndex::remove(std::uint32_t directory, std::string_view name, std::int64_t time_ns) {
    const std::unique_lock guard(lock_);
    const auto above = directories_.find(directory);
    if (above == directories_.end()) {
        return;
    }
    above->second.time_ns = time_ns;
    if (const auto known = store_.find(directory, name)) {
        detach(*known);
    }
}

std::size_t LiveIndex::place_in(const Directory& directory, std::uint32_t order) const {
    const auto& children = directory.children;
    const auto at = std::partition_point(
        children.begin(), children.end(),
        [this, order](std::uint32_t child) { return store_.records[child].order < order; });
    return static_cast<std::size_t>(at - children.begin());
}

// Takes an entry's name, and frees it.
void LiveIndex::detach(std::uint32_t number) {
    const auto& record = store_.records[number];
    auto& above = directories_.at(record.parent);
    const auto place = place_in(above, record.order);
    above.children.erase(above.children.begin() + static_cast<std::ptrdiff_t>(place));
    const bool showed_directory = record.kind == EntryKind::directory ||
                                  (record.kind == EntryKind::handed_up && S_ISDIR(record.extra));
    above.directories -= showed_directory ? 1 : 0;
    store_.unlink(number);
    release(number);
}

// Frees an entry without a name, and all below it.
void LiveIndex::release(std::uint32_t number) {
    std::vector<std::uint32_t> left{number};
    while (!left.empty()) {
        const auto at = left.back();
        left.pop_back();
        auto& record = store_.records[at];
        if (record.kind == EntryKind::directory) {
            for (const auto child : directories_.at(at).children) {
                store_.unlink(child);
                left.push_back(child);
            }
            handed_up_ -= directories_.at(at).asks ? 1 : 0;
            directories_.erase(at);
        } else if (record.kind == EntryKind::blob) {
            store_.drop_terms(record);
            times_.erase(at);
        } else if (record.kind == EntryKind::symlink) {
            store_.texts.remove(record.place, record.extra);
        } else if (record.kind == EntryKind::handed_up) {
            --handed_up_;
        }
        ends_.erase(at);
        store_.texts.remove(record.name, record.name_length);
        store_.drop_given(record.given);
        store_.records.remove(at);
    }
}

}  // namespace zc
