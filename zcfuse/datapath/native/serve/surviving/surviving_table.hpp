// A table in memory that may survive its process. `Layout` says what lies there; its first member
// is `magic`, a number that no other table has.
//
// The tables derive from it, and their threads hold its lock, which is innermost.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <utility>

#include "serve/surviving/publish.hpp"
#include "sys/memory_file.hpp"

namespace zc {

template <typename Layout>
class SurvivingTable {
  public:
    SurvivingTable(const SurvivingTable&) = delete;
    SurvivingTable& operator=(const SurvivingTable&) = delete;

    int fd() const noexcept { return file_.fd(); }
    int detach() noexcept { return file_.detach(); }

  protected:
    // Makes an empty one. Throws std::system_error.
    SurvivingTable(const char* name, std::uint64_t magic) : file_(name, sizeof(Layout)) {
        publish(at().magic, magic);
    }
    // Takes what an earlier process left. `what` begins the errors. Throws std::system_error,
    // DamagedState.
    SurvivingTable(sys::UniqueFd fd, std::uint64_t magic, const char* what) : file_(std::move(fd)) {
        if (file_.size() != sizeof(Layout) || at().magic != magic) {
            throw damaged(what, "its header");
        }
    }
    ~SurvivingTable() = default;

    static DamagedState damaged(const std::string& what, const std::string& where) {
        return DamagedState(what + " is damaged: " + where);
    }
    Layout& at() const noexcept { return *reinterpret_cast<Layout*>(file_.data()); }

    mutable std::mutex lock_;

  private:
    sys::MemoryFile file_;
};

}  // namespace zc
