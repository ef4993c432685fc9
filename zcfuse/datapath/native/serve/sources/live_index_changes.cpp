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

constexpr auto kNoOrder = std::numeric_limits<std::uint32_t>::max();

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
    if (asks) {
        directories_[kRoot].policy = std::make_unique<Policy>();
        ++forwarded_;
    }
}

std::optional<std::uint32_t> LiveIndex::home(std::uint32_t directory, const AnswerLease& lease,
                                             bool makes) {
    if (!lease.uid) {
        return directory;
    }
    auto& users = directories_.at(directory).policy->users;
    if (const auto known = users.find(*lease.uid); known != users.end()) {
        return known->second;
    }
    if (!makes) {
        return {};
    }
    IndexRecord record;
    record.kind = EntryKind::directory;
    record.key = store_.records[directory].key;
    record.serial = ++last_serial_;
    record.parent = directory;
    record.given = store_.keep_given({});
    const auto made = store_.records.add(record);
    directories_[made].policy = std::make_unique<Policy>();
    ++forwarded_;
    ++users_;
    directories_.at(directory).policy->users.emplace(*lease.uid, made);
    return made;
}

std::vector<std::uint32_t> LiveIndex::put(std::uint32_t directory, std::vector<Spec> specs,
                                          std::int64_t time_ns, const AnswerLease& lease) {
    std::vector<std::uint32_t> numbers;
    numbers.reserve(specs.size());
    const std::unique_lock guard(lock_);
    require_directory(directory, lease);
    const auto at = *home(directory, lease, true);
    for (auto& spec : specs) {
        resolve(spec);
        numbers.push_back(put_one(at, spec, lease.until_ms));
    }
    directories_.at(directory).time_ns = time_ns;
    return numbers;
}

void LiveIndex::require_directory(std::uint32_t directory, const AnswerLease& lease) const {
    const auto known = directories_.find(directory);
    if (known == directories_.end()) {
        throw std::system_error(ESTALE, std::generic_category(), "an index's directory");
    }
    if (lease.uid && known->second.policy == nullptr) {
        throw std::system_error(EINVAL, std::generic_category(), "a lease for a user");
    }
}

std::vector<std::uint32_t> LiveIndex::list(std::uint32_t directory, std::vector<Spec> specs,
                                           std::int64_t time_ns, const AnswerLease& lease,
                                           bool complete) {
    std::vector<std::uint32_t> numbers;
    numbers.reserve(specs.size());
    const std::unique_lock guard(lock_);
    require_directory(directory, lease);
    const auto at = *home(directory, lease, true);
    if (directories_.at(at).policy == nullptr) {
        throw std::system_error(EINVAL, std::generic_category(), "a leased listing");
    }
    for (const auto child : directories_.at(at).children) {
        store_.records[child].listed = false;
    }
    for (auto& spec : specs) {
        auto known = spec.kind == EntryKind::none ? store_.find(at, spec.name) : std::nullopt;
        if (known && store_.records[*known].kind == EntryKind::missing) {
            known.reset();  // the listing is newer
        }
        if (!known) {
            const bool stub = spec.kind == EntryKind::none;
            spec.kind = stub ? EntryKind::forwarded : spec.kind;
            resolve(spec);
            known = put_one(at, spec, stub ? kForever : lease.until_ms);
        }
        store_.records[*known].listed = true;
        numbers.push_back(*known);
    }
    auto& policy = *directories_.at(at).policy;
    policy.listed_until_ms = lease.until_ms;
    policy.complete = complete;
    directories_.at(directory).time_ns = time_ns;
    directories_.at(at).time_ns = time_ns;
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

std::uint32_t LiveIndex::put_one(std::uint32_t directory, Spec& spec, std::int64_t until_ms) {
    const auto key =
        spec.kind == EntryKind::forwarded ? spec.ino : key_of(spec, store_.records[directory].key);
    bool listed = false;
    auto order = kNoOrder;
    if (const auto known = store_.find(directory, spec.name)) {
        const auto& record = store_.records[*known];
        const bool stays = spec.kind == EntryKind::directory ? spec.keeps : record.key == key;
        if (stays && record.kind == spec.kind) {
            set_end(*known, until_ms);
            return *known;
        }
        listed = record.listed && spec.kind != EntryKind::missing;
        order = record.order;
        detach(*known);
    }
    auto& above = directories_.at(directory);
    // A listing under way meets a policy's name once, whatever the name has come to mean.
    const bool is_behind = order == kNoOrder || above.policy == nullptr;
    if (above.next_order == std::numeric_limits<std::uint32_t>::max()) {
        throw std::system_error(EOVERFLOW, std::generic_category(), "names of a directory");
    }
    IndexRecord record;
    record.key = key;
    record.serial = ++last_serial_;
    record.parent = directory;
    record.order = is_behind ? above.next_order++ : order;
    record.listed = listed;
    record.name = store_.texts.add(spec.name);
    record.name_length = static_cast<std::uint16_t>(spec.name.size());
    record.given = store_.keep_given(spec.given);
    describe(record, spec);
    const auto number = store_.records.add(record);
    const auto place = static_cast<std::ptrdiff_t>(place_in(above, record.order));
    above.children.insert(above.children.begin() + place, number);
    store_.link(number);
    if (spec.kind == EntryKind::blob && spec.time_ns != 0) {
        times_[number] = spec.time_ns;
    } else if (spec.kind == EntryKind::directory) {
        auto& made = directories_[number];
        made.time_ns = spec.time_ns;
        if (spec.asks) {
            made.policy = std::make_unique<Policy>();
            ++forwarded_;
        }
    }
    set_end(number, until_ms);
    const bool shows_directory =
        spec.kind == EntryKind::directory ||
        (spec.kind == EntryKind::forwarded && S_ISDIR(static_cast<mode_t>(spec.type)));
    directories_.at(directory).directories += shows_directory ? 1 : 0;
    return number;
}

void LiveIndex::set_end(std::uint32_t number, std::int64_t until_ms) {
    if (until_ms == kForever) {
        ends_.erase(number);
    } else {
        ends_[number] = until_ms;
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
    } else if (spec.kind == EntryKind::forwarded) {
        record.extra = static_cast<std::uint16_t>(spec.type);
        ++forwarded_;
    }
}

void LiveIndex::remove(std::uint32_t directory, std::string_view name, std::int64_t time_ns) {
    const std::unique_lock guard(lock_);
    const auto above = directories_.find(directory);
    if (above == directories_.end()) {
        return;
    }
    above->second.time_ns = time_ns;
    std::vector<std::uint32_t> homes{directory};
    if (above->second.policy != nullptr) {
        for (const auto& [uid, home] : above->second.policy->users) {
            homes.push_back(home);
        }
    }
    for (const auto home : homes) {
        if (auto& policy = directories_.at(home).policy; policy != nullptr) {
            policy->listed_until_ms = 0;
        }
        if (const auto known = store_.find(home, name)) {
            detach(*known);
        }
    }
}

void LiveIndex::drop(std::uint32_t directory, std::string_view name,
                     std::optional<std::uint32_t> uid) {
    const std::unique_lock guard(lock_);
    const auto above = directories_.find(directory);
    if (above == directories_.end() || above->second.policy == nullptr) {
        return;
    }
    const auto at = home(directory, {uid, kForever}, false);
    const auto known = at ? store_.find(*at, name) : std::nullopt;
    if (known && !store_.records[*known].listed) {
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
                                  (record.kind == EntryKind::forwarded && S_ISDIR(record.extra));
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
            const auto& directory = directories_.at(at);
            for (const auto child : directory.children) {
                store_.unlink(child);
                left.push_back(child);
            }
            if (directory.policy != nullptr) {
                for (const auto& [uid, home] : directory.policy->users) {
                    left.push_back(home);
                    --users_;
                }
                --forwarded_;
            }
            directories_.erase(at);
        } else if (record.kind == EntryKind::blob) {
            store_.drop_terms(record);
            times_.erase(at);
        } else if (record.kind == EntryKind::symlink) {
            store_.texts.remove(record.place, record.extra);
        } else if (record.kind == EntryKind::forwarded) {
            --forwarded_;
        }
        ends_.erase(at);
        store_.texts.remove(record.name, record.name_length);
        store_.drop_given(record.given);
        store_.records.remove(at);
    }
}

}  // namespace zc
