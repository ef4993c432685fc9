// The source that shows a frozen image. It asks no filesystem for a name: only an open looks at the
// files that bytes lie in. They must be as large as they were, and those that pieces lie in have
// the same mtime; otherwise the open is ESTALE.
//
// An open directory is a nid, and so is an identity's inode number.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "serve/sources/backing_paths.hpp"
#include "serve/sources/erofs_image.hpp"
#include "serve/sources/source.hpp"

namespace zc {

class FrozenSource final : public Source, public std::enable_shared_from_this<FrozenSource> {
  public:
    // A file that pieces lie in, as it was when the tree was frozen.
    struct Device {
        std::string path;  // absolute
        std::uint64_t size = 0;
        std::int64_t mtime_ns = 0;
    };
    // `roots`: the directories that whole files lie below; the first that has a file serves it.
    // `refused`: our own mount's device, major << 32 | minor.
    static std::shared_ptr<const FrozenSource> make(std::shared_ptr<const ErofsImage> image,
                                                    std::vector<Device> devices,
                                                    std::vector<sys::UniqueFd> roots,
                                                    std::uint64_t refused);

    Kind kind() const noexcept override { return Kind::index; }
    Freshness freshness() const noexcept override { return Freshness::fixed; }
    Freshness data_freshness() const noexcept override { return Freshness::timed; }
    SourceDirectory::Ref root() const override;
    int filesystem_status(struct ::statvfs& into) const override;
    Volume volume(std::uint32_t) const override { return {}; }
    std::size_t descriptors() const noexcept override { return 0; }
    std::uint64_t content() const noexcept override { return image_->content(); }

  private:
    class At;
    class Names;
    class Unchanged;
    using File = std::shared_ptr<const sys::UniqueFd>;

    FrozenSource(std::shared_ptr<const ErofsImage> image, std::vector<Device> devices,
                 std::vector<sys::UniqueFd> roots, std::uint64_t refused);
    int describe(std::uint64_t nid, Found& into) const;
    int open_whole(const ErofsImage::Inode& inode, const std::string& redirect, int flags,
                   sys::UniqueFd& into, struct ::statx& status) const;
    int open_pieces(const std::vector<ErofsImage::Run>& pieces, std::vector<Extent>& into) const;
    int device(std::int32_t number, Extent& into) const;

    struct OpenDevice {
        File file;
        std::uint64_t id = 0;
    };
    void keep(std::int32_t number, OpenDevice device) const;

    const std::shared_ptr<const ErofsImage> image_;
    const std::vector<Device> devices_;
    const std::vector<sys::UniqueFd> roots_;
    const std::uint64_t image_id_ = next_file_id();
    const std::size_t limit_;  // of open devices
    mutable BackingPaths paths_;
    mutable std::mutex lock_;  // innermost
    mutable std::unordered_map<std::int32_t, OpenDevice> open_;
};

}  // namespace zc
