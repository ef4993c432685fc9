// The source that shows an index (sources/member_index.hpp), for example an archive's members. It
// asks no filesystem for a name, so its answers hold until it is replaced.
//
// An open directory is a number. Its identity is the inode number that clients see.
#pragma once

#include <memory>

#include "serve/sources/member_index.hpp"
#include "serve/sources/source.hpp"

namespace zc {

class IndexSource final : public Source, public std::enable_shared_from_this<IndexSource> {
  public:
    static std::shared_ptr<const IndexSource> make(std::shared_ptr<const MemberIndex> index);

    Kind kind() const noexcept override { return Kind::index; }
    Freshness freshness() const noexcept override { return Freshness::fixed; }
    SourceDirectory::Ref root() const override;
    int filesystem_status(struct ::statvfs&) const override { return kUpcall; }
    Volume volume(std::uint32_t) const override { return {}; }
    std::uint64_t content() const noexcept override { return index_->number(); }
    std::size_t descriptors() const noexcept override { return 0; }
    std::size_t bytes() const noexcept override { return index_->bytes(); }

    const MemberIndex& index() const noexcept { return *index_; }

  private:
    class At;
    class Names;
    explicit IndexSource(std::shared_ptr<const MemberIndex> index) noexcept
        : index_(std::move(index)) {}
    int describe(std::uint32_t number, Found& into) const;

    const std::shared_ptr<const MemberIndex> index_;
};

}  // namespace zc
