#include "serve/sources/index_store.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <limits>
#include <system_error>
#include <utility>

#include "serve/sources/hashing.hpp"
#include "sys/files.hpp"
#include "sys/syscalls.hpp"

namespace zc {

namespace {

constexpr std::size_t kFirstSlots = 64;
constexpr std::uint64_t kNameBits = 32;
// Distinct attributes beyond these are kept with each entry.
constexpr std::size_t kSharedGiven = 4096;
// This bit in a record's place means that a separate vector holds the terms.
constexpr std::uint32_t kLonger = 1U << 31;

std::uint64_t hash_of(const GivenAttributes& given) noexcept {
    const std::uint64_t path = given.path ? static_cast<std::uint64_t>(*given.path) + 1 : 0;
    auto mixed = mix(mix(given.set, given.mode), static_cast<std::uint64_t>(given.mtime_ns));
    return mix(mix(mixed, std::uint64_t{given.uid} << 32 | given.gid), path);
}

std::uint64_t next_directory_id() noexcept {
    static std::atomic<std::uint64_t> last{0};
    return ++last;
}

}  // namespace

std::uint32_t TextArena::add(std::string_view text) {
    auto& places = free_[text.size()];
    if (!places.empty()) {
        const auto place = places.back();
        places.pop_back();
        std::copy(text.begin(), text.end(), text_.begin() + place);
        return place;
    }
    const auto place = text_.size();
    if (place + text.size() > std::numeric_limits<std::uint32_t>::max()) {
        throw std::system_error(EOVERFLOW, std::generic_category(), "names of an index");
    }
    text_ += text;
    return static_cast<std::uint32_t>(place);
}

void TextArena::remove(std::uint32_t place, std::size_t length) {
    free_[length].push_back(place);
}

// Linear probing: the slot of the name, or the free one where it would be.
std::size_t IndexStore::slot_of(std::uint32_t directory, std::string_view name) const noexcept {
    const auto last = hash_.size() - 1;
    auto slot = mix(directory, name) & last;
    while (hash_[slot] != 0) {
        const auto& record = records[hash_[slot] - 1];
        if (record.parent == directory && name_of(record) == name) {
            break;
        }
        slot = (slot + 1) & last;
    }
    return slot;
}

std::optional<std::uint32_t> IndexStore::find(std::uint32_t directory,
                                              std::string_view name) const {
    if (hash_.empty()) {
        return {};
    }
    const auto found = hash_[slot_of(directory, name)];
    return found == 0 ? std::nullopt : std::optional(found - 1);
}

void IndexStore::grow() {
    std::vector<std::uint32_t> before(std::max(hash_.size() * 2, kFirstSlots));
    before.swap(hash_);
    for (const auto found : before) {
        if (found != 0) {
            const auto& record = records[found - 1];
            hash_[slot_of(record.parent, name_of(record))] = found;
        }
    }
}

void IndexStore::link(std::uint32_t number) {
    if ((hashed_ + 1) * 8 > hash_.size() * 7) {
        grow();
    }
    const auto& record = records[number];
    hash_[slot_of(record.parent, name_of(record))] = number + 1;
    ++hashed_;
}

// Entries that probed past the slot move up, so that searches do not end too early.
void IndexStore::unlink(std::uint32_t number) {
    const auto last = hash_.size() - 1;
    const auto& gone = records[number];
    auto hole = slot_of(gone.parent, name_of(gone));
    if (hash_[hole] == 0) {
        return;
    }
    --hashed_;
    for (auto slot = (hole + 1) & last; hash_[slot] != 0; slot = (slot + 1) & last) {
        const auto& record = records[hash_[slot] - 1];
        const auto wanted = mix(record.parent, name_of(record)) & last;
        if (((slot - wanted) & last) >= ((slot - hole) & last)) {
            hash_[hole] = hash_[slot];
            hole = slot;
        }
    }
    hash_[hole] = 0;
}

BackingPath IndexStore::path_of(std::string_view absolute) {
    const auto slash = absolute.rfind('/') + 1;
    const std::string text(absolute.substr(0, slash));
    const std::string name(absolute.substr(slash));
    const auto known = directory_numbers_.find(text);
    if (known != directory_numbers_.end()) {
        const auto& source = directories_[known->second];
        return {source.directory, source.id, name};
    }
    const auto made =
        directories_.add({std::make_shared<const std::string>(text), next_directory_id(), 0});
    directory_numbers_.emplace(text, made);
    return {directories_[made].directory, directories_[made].id, name};
}

std::uint32_t IndexStore::use_directory(const BackingPath& path) {
    const auto known = directory_numbers_.find(*path.directory);
    if (known != directory_numbers_.end()) {
        ++directories_[known->second].uses;
        return known->second;
    }
    // The entry that this one replaces was the last in the directory, which went with it.
    const auto made = directories_.add({path.directory, path.directory_id, 1});
    directory_numbers_.emplace(*path.directory, made);
    return made;
}

std::shared_ptr<const sys::UniqueFd> IndexStore::memory_of(int fd) {
    struct ::statx status {};
    if (sys::status_of(fd, "", false, status) != 0) {
        return nullptr;
    }
    auto& kept = memory_files_[status.stx_ino];
    if (auto file = kept.lock()) {
        return file;
    }
    auto copy = std::make_shared<sys::UniqueFd>();
    if (sys::dup_cloexec(fd, *copy) != 0) {
        return nullptr;
    }
    kept = copy;
    return copy;
}

std::uint32_t IndexStore::use_memory(const std::shared_ptr<const sys::UniqueFd>& memory) {
    const auto known = memory_numbers_.find(memory.get());
    if (known != memory_numbers_.end()) {
        ++memories_[known->second].uses;
        return known->second;
    }
    const auto made = memories_.add({memory, 1});
    memory_numbers_.emplace(memory.get(), made);
    return made;
}

StoredTerm IndexStore::stored(const BlobTerm& term) {
    StoredTerm made{term.offset, term.length, 0, term.kind, term.whole};
    if (term.kind == BlobTerm::Kind::file) {
        made.offset = texts.add(term.path.name) | std::uint64_t{term.path.name.size()} << kNameBits;
        made.source = use_directory(term.path);
    } else if (term.kind == BlobTerm::Kind::memory) {
        made.source = use_memory(term.memory);
    } else if (term.kind == BlobTerm::Kind::concat) {
        made.length = term.count;
    }
    return made;
}

BlobTerm IndexStore::restored(const StoredTerm& term) const {
    BlobTerm made{term.kind, term.whole, 0, term.offset, term.length, {}, {}};
    if (term.kind == BlobTerm::Kind::file) {
        const auto& source = directories_[term.source];
        const auto place = static_cast<std::uint32_t>(term.offset);
        made.path = {source.directory, source.id,
                     std::string(texts.at(place, term.offset >> kNameBits))};
        made.offset = 0;
    } else if (term.kind == BlobTerm::Kind::memory) {
        made.memory = memories_[term.source].file;
    } else if (term.kind == BlobTerm::Kind::concat) {
        made.count = static_cast<std::uint32_t>(term.length);
    }
    return made;
}

void IndexStore::drop(const StoredTerm& term) {
    if (term.kind == BlobTerm::Kind::file) {
        texts.remove(static_cast<std::uint32_t>(term.offset), term.offset >> kNameBits);
        auto& source = directories_[term.source];
        if (--source.uses == 0) {
            directory_numbers_.erase(*source.directory);
            directories_.remove(term.source);
        }
    } else if (term.kind == BlobTerm::Kind::memory) {
        auto& memory = memories_[term.source];
        if (--memory.uses == 0) {
            memory_numbers_.erase(memory.file.get());
            memories_.remove(term.source);
        }
    }
}

void IndexStore::keep_terms(IndexRecord& record, const std::vector<BlobTerm>& terms) {
    if (terms.size() == 1) {
        record.place = terms_.add(stored(terms.front()));
        return;
    }
    std::vector<StoredTerm> kept;
    kept.reserve(terms.size());
    for (const auto& term : terms) {
        kept.push_back(stored(term));
    }
    record.place = longer_.add(std::move(kept)) | kLonger;
}

std::vector<BlobTerm> IndexStore::terms_of(const IndexRecord& record) const {
    if ((record.place & kLonger) == 0) {
        return {restored(terms_[record.place])};
    }
    std::vector<BlobTerm> found;
    for (const auto& term : longer_[record.place & ~kLonger]) {
        found.push_back(restored(term));
    }
    return found;
}

void IndexStore::drop_terms(const IndexRecord& record) {
    if ((record.place & kLonger) == 0) {
        drop(terms_[record.place]);
        terms_.remove(record.place);
        return;
    }
    for (const auto& term : longer_[record.place & ~kLonger]) {
        drop(term);
    }
    longer_.remove(record.place & ~kLonger);
}

std::uint32_t IndexStore::keep_given(const GivenAttributes& given) {
    const auto hash = hash_of(given);
    const auto known = given_numbers_.find(hash);
    if (known != given_numbers_.end() && given_[known->second].value == given) {
        ++given_[known->second].uses;
        return known->second;
    }
    const auto made = given_.add({given, 1});
    if (known == given_numbers_.end() && given_numbers_.size() < kSharedGiven) {
        given_numbers_.emplace(hash, made);
    }
    return made;
}

void IndexStore::drop_given(std::uint32_t number) {
    auto& given = given_[number];
    if (--given.uses > 0) {
        return;
    }
    const auto known = given_numbers_.find(hash_of(given.value));
    if (known != given_numbers_.end() && known->second == number) {
        given_numbers_.erase(known);
    }
    given_.remove(number);
}

std::size_t IndexStore::bytes() const noexcept {
    return records.bytes() + texts.bytes() + terms_.bytes() + longer_.bytes() +
           directories_.bytes() + given_.bytes() + hash_.size() * sizeof(std::uint32_t);
}

}  // namespace zc
