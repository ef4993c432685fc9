// The memory of a LiveIndex: a record per node, the terms of its bytes, names, and a hash of names.
//
// A million files take about 110 bytes each: 48 for the record, 24 for a term, 6 in the hash, 4 in
// the directory, the rest for the names. Threads: the owner's lock guards all.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "serve/config.hpp"
#include "serve/sources/blob.hpp"

namespace zc {

// Values by number; freed numbers are reused.
template <typename Value>
class Pool {
  public:
    std::uint32_t add(Value value) {
        if (free_.empty()) {
            values_.push_back(std::move(value));
            return static_cast<std::uint32_t>(values_.size() - 1);
        }
        const auto number = free_.back();
        free_.pop_back();
        values_[number] = std::move(value);
        return number;
    }
    void remove(std::uint32_t number) {
        values_[number] = Value{};
        free_.push_back(number);
    }
    Value& operator[](std::uint32_t number) { return values_[number]; }
    const Value& operator[](std::uint32_t number) const { return values_[number]; }
    std::size_t extent() const noexcept { return values_.size(); }
    std::size_t size() const noexcept { return values_.size() - free_.size(); }
    std::size_t bytes() const noexcept {
        return values_.size() * sizeof(Value) + free_.capacity() * sizeof(std::uint32_t);
    }

  private:
    std::deque<Value> values_;
    std::vector<std::uint32_t> free_;
};

// Texts of up to PATH_MAX, by place. A removed text's space is reused for texts of the same length.
class TextArena {
  public:
    std::uint32_t add(std::string_view text);
    void remove(std::uint32_t place, std::size_t length);
    std::string_view at(std::uint32_t place, std::size_t length) const {
        return std::string_view(text_).substr(place, length);
    }
    std::size_t bytes() const noexcept { return text_.size(); }

  private:
    std::string text_;
    std::unordered_map<std::size_t, std::vector<std::uint32_t>> free_;  // by length
};

// The attributes that a program gave an entry by keyword.
struct GivenAttributes {
    std::int64_t mtime_ns = 0;
    std::uint32_t mode = 0;
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::uint8_t set = 0;  // of kGivenMode and so on
    std::optional<Mode> path;
    bool operator==(const GivenAttributes&) const = default;
};
inline constexpr std::uint8_t kGivenMode = 1;
inline constexpr std::uint8_t kGivenUid = 2;
inline constexpr std::uint8_t kGivenGid = 4;
inline constexpr std::uint8_t kGivenMtime = 8;

// `missing` is a policy's answer that there is no such name.
enum class EntryKind : std::uint8_t { none, directory, symlink, blob, forwarded, missing };

struct IndexRecord {
    std::uint64_t key = 0;     // of its place and what it is; of what is forwarded the inode number
    std::uint64_t serial = 0;  // unique among all records ever
    std::uint32_t parent = 0;
    std::uint32_t order = 0;  // of its name in the directory
    std::uint32_t name = 0;   // in the arena
    std::uint32_t given = 0;
    std::uint32_t place = 0;  // of a blob the term, of a symlink the target
    std::uint16_t name_length = 0;
    std::uint16_t extra = 0;  // of a symlink the target's length; of what is forwarded its mode
    EntryKind kind = EntryKind::none;
    bool listed = false;  // in a policy's directory: whether its leased listing has the name
};
static_assert(sizeof(IndexRecord) == 48);

// One stored term of a blob. A single term lies in the pool, several in a separate vector.
struct StoredTerm {
    std::uint64_t offset = 0;  // of a file: the name in the arena, and its length above
    std::uint64_t length = 0;  // of a concatenation: the number of parts
    std::uint32_t source = 0;  // of a file the directory, of memory the memory
    BlobTerm::Kind kind = BlobTerm::Kind::zeros;
    bool whole = false;
};
static_assert(sizeof(StoredTerm) == 24);

class IndexStore {
  public:
    Pool<IndexRecord> records;
    TextArena texts;

    std::string_view name_of(const IndexRecord& record) const {
        return texts.at(record.name, record.name_length);
    }
    // The number of `name` in a directory.
    std::optional<std::uint32_t> find(std::uint32_t directory, std::string_view name) const;
    void link(std::uint32_t number);
    void unlink(std::uint32_t number);

    void keep_terms(IndexRecord& record, const std::vector<BlobTerm>& terms);
    std::vector<BlobTerm> terms_of(const IndexRecord& record) const;
    void drop_terms(const IndexRecord& record);

    std::uint32_t keep_given(const GivenAttributes& given);
    GivenAttributes given_of(const IndexRecord& record) const { return given_[record.given].value; }
    void drop_given(std::uint32_t number);

    // The directory of a path; equal texts have one id while any entry has it.
    BackingPath path_of(std::string_view absolute);
    // The descriptor of a memory; equal ones share it. Null if it cannot be copied.
    std::shared_ptr<const sys::UniqueFd> memory_of(int fd);

    std::size_t bytes() const noexcept;

  private:
    struct Source {
        std::shared_ptr<const std::string> directory;
        std::uint64_t id = 0;
        std::uint32_t uses = 0;
    };
    struct Memory {
        std::shared_ptr<const sys::UniqueFd> file;
        std::uint32_t uses = 0;
    };
    struct CountedGiven {
        GivenAttributes value;
        std::uint32_t uses = 0;
    };
    StoredTerm stored(const BlobTerm& term);
    BlobTerm restored(const StoredTerm& term) const;
    void drop(const StoredTerm& term);
    std::uint32_t use_directory(const BackingPath& path);
    std::uint32_t use_memory(const std::shared_ptr<const sys::UniqueFd>& memory);
    std::size_t slot_of(std::uint32_t directory, std::string_view name) const noexcept;
    void grow();

    Pool<StoredTerm> terms_;
    Pool<std::vector<StoredTerm>> longer_;
    Pool<Source> directories_;
    std::unordered_map<std::string, std::uint32_t> directory_numbers_;
    Pool<Memory> memories_;
    std::unordered_map<std::uint64_t, std::weak_ptr<const sys::UniqueFd>> memory_files_;
    std::unordered_map<const sys::UniqueFd*, std::uint32_t> memory_numbers_;
    Pool<CountedGiven> given_;
    std::unordered_map<std::uint64_t, std::uint32_t> given_numbers_;
    std::vector<std::uint32_t> hash_;  // record numbers and one more; 0: free
    std::size_t hashed_ = 0;
};

}  // namespace zc
