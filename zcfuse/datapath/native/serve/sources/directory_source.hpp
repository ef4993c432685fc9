// The source that shows a real directory, on one mount. An open directory is an O_PATH descriptor;
// each access opens the name beneath it and compares the identity.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "serve/sources/source.hpp"
#include "sys/unique_fd.hpp"

namespace zc {

class DirectorySource final : public Source, public std::enable_shared_from_this<DirectorySource> {
  public:
    // Copies the descriptor (O_PATH will do). Throws std::system_error: it is no directory's, or
    // the kernel has no openat2(2).
    static std::shared_ptr<const DirectorySource> open(int fd);
    // For control, which crosses mounts itself: takes the descriptor over, which may be that of a
    // mounted file, and needs no openat2(2). `walks`: never call it.
    static std::shared_ptr<const DirectorySource> open_any(sys::UniqueFd fd, bool walks);

    Kind kind() const noexcept override { return Kind::directory; }
    bool is_near() const noexcept override { return near_; }
    Freshness freshness() const noexcept override {
        return freshness_.load(std::memory_order_acquire);
    }
    SourceDirectory::Ref root() const override;
    SourceDirectory::Ref adopt(sys::UniqueFd directory) const override;
    bool is_changeable() const noexcept override { return true; }
    int filesystem_status(struct ::statvfs& into) const override;
    std::uint64_t shown_ino(const struct ::statx& status) const noexcept override;
    Volume volume(std::uint32_t layer) const override;
    std::uint64_t content() const noexcept override { return mixed(device_); }
    void add_real(std::uint32_t first, std::vector<Real>& into) const override {
        into.push_back({first, fd_.get()});
    }
    bool names_can_be_watched() const noexcept override { return true; }
    void set_pushed(Freshness how) const noexcept override {
        freshness_.store(how, std::memory_order_release);
    }

    // The identity of a file that `name` in `directory` leads to, with its status; layer 0.
    static Identity identity_of(const struct ::statx& status, int directory, const char* name);

  private:
    class At;
    class Names;

    DirectorySource(sys::UniqueFd fd, const struct ::statx& status, bool walks) noexcept;
    static std::shared_ptr<const DirectorySource> make(sys::UniqueFd fd, bool walks, bool any);
    bool other_mount(const struct ::statx& status) const noexcept;
    // Opens a path beneath an open directory of this source.
    int open_beneath(int directory, const char* path, int flags, sys::UniqueFd& into) const;

    const sys::UniqueFd fd_;
    const std::uint64_t device_;
    const bool is_directory_;
    const bool walks_;
    const bool local_;  // statx never asks a server
    const bool near_;
    mutable std::atomic<Freshness> freshness_{Freshness::timed};
};

}  // namespace zc
