#include "serve/nodes/catalogues.hpp"

#include <cerrno>
#include <system_error>
#include <utility>

namespace zc {

namespace {

constexpr std::uint32_t kMostNumbers = (1U << 29) - 1;  // the bits between the marks and the node

}  // namespace

void Catalogues::lease(std::uint64_t nodeid, std::shared_ptr<const Catalogue> catalogue) {
    drop(nodeid);
    const std::unique_lock guard(lock_);
    if (last_ == kMostNumbers) {
        throw std::system_error(EOVERFLOW, std::generic_category(), "leasing a catalogue");
    }
    numbers_[nodeid] = ++last_;
    leases_[last_] = {std::move(catalogue), nodeid, false};
    any_.store(true, std::memory_order_release);
}

bool Catalogues::revoke(std::uint64_t nodeid) {
    const std::unique_lock guard(lock_);
    const auto found = numbers_.find(nodeid);
    if (found == numbers_.end()) {
        return false;
    }
    leases_[found->second].revoked = true;
    return true;
}

void Catalogues::drop(std::uint64_t nodeid) {
    Lease dropped;
    const std::unique_lock guard(lock_);
    const auto found = numbers_.find(nodeid);
    if (found != numbers_.end()) {
        dropped = std::move(leases_[found->second]);
        leases_.erase(found->second);
        numbers_.erase(found);
    }
}

void Catalogues::clear() {
    std::unordered_map<std::uint32_t, Lease> dropped;
    const std::unique_lock guard(lock_);
    dropped.swap(leases_);
    numbers_.clear();
}

std::optional<Catalogues::Place> Catalogues::find(std::uint64_t nodeid) const {
    if (none()) {
        return {};
    }
    const std::shared_lock guard(lock_);
    auto number = static_cast<std::uint32_t>((nodeid & ~kCatalogueHandle) >> 32);
    auto node = static_cast<std::uint32_t>(nodeid);
    if (!is_catalogued(nodeid)) {
        const auto root = numbers_.find(nodeid);
        if (root == numbers_.end()) {
            return {};
        }
        number = root->second;
        node = Catalogue::kRoot;
    }
    const auto found = leases_.find(number);
    if (found == leases_.end()) {
        return {};
    }
    const auto& lease = found->second;
    return Place{lease.catalogue, lease.root, number, node, lease.revoked};
}

std::vector<std::string> Catalogues::names_in(std::uint64_t nodeid) const {
    std::vector<std::string> found;
    const auto place = find(nodeid);
    Catalogue::Names names;
    if (!place || place->catalogue->names_of(place->node, names) != 0) {
        return found;
    }
    for (std::uint64_t i = 0; i < names.count; ++i) {
        Catalogue::Entry entry;
        if (place->catalogue->entry(names.first + i, entry) == 0) {
            found.emplace_back(entry.name);
        }
    }
    return found;
}

void Catalogues::describe(std::uint64_t nodeid) {
    const std::unique_lock guard(lock_);
    described_.insert(nodeid);
}

bool Catalogues::was_described(std::uint64_t nodeid) {
    const std::unique_lock guard(lock_);
    return described_.erase(nodeid) > 0;
}

Catalogues::Statistics Catalogues::statistics() const {
    const std::shared_lock guard(lock_);
    Statistics sum;
    for (const auto& [number, lease] : leases_) {
        ++sum.leased;
        sum.bytes += lease.catalogue->bytes();
        sum.files += lease.catalogue->has_file() ? 1 : 0;
    }
    return sum;
}

}  // namespace zc
