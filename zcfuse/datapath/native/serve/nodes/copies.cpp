// The part of LeasedNodes that copies files of a union up before clients change them.
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "serve/nodes/leased_nodes.hpp"
#include "serve/nodes/pool_permits.hpp"

namespace zc {

bool LeasedNodes::is_changeable(std::uint64_t nodeid) const {
    const auto root = root_above(nodeid);
    return root != nullptr && root->source->is_changeable();
}

bool LeasedNodes::is_in_union(std::uint64_t nodeid) const {
    const auto root = any_overlays_ ? root_above(nodeid) : nullptr;
    return root != nullptr && root->source->kind() == Source::Kind::overlay;
}

int LeasedNodes::refused_write(std::uint64_t nodeid) const {
    const auto root = any_overlays_ ? root_above(nodeid) : nullptr;
    const int refused = root != nullptr ? root->source->refused_write() : 0;
    return refused != 0 || root == nullptr ? refused : refused_in_pool(*this, nodeid);
}

// From the directory at hand up to one that the upper layer has, then down again.
int LeasedNodes::directory_to_change(std::uint64_t nodeid, ThreadCounts& counts,
                                     std::shared_ptr<const Directory>& into) {
    std::vector<Link> missing;  // the deepest first
    for (auto at = nodeid; missing.size() < kDepthLimit; at = missing.back().parent) {
        if (const int error = directory(at, counts, into); error != 0) {
            return error;
        }
        const auto* merged = into->at->as_union();
        if (!into->root->source->is_changeable() || (merged != nullptr && merged->is_raised())) {
            break;
        }
        const auto node = merged != nullptr ? nodes_.find(at) : std::nullopt;
        if (!node || node->is_root) {
            break;
        }
        missing.push_back(node->link);
    }
    while (!missing.empty()) {
        const int error = into->at->as_union()->raise(missing.back().name.c_str());
        if (error != 0) {
            return error == -ENOENT ? -ESTALE : error;
        }
        cache_.clear();  // what is open lacks the new part
        missing.pop_back();
        const auto below = missing.empty() ? nodeid : missing.back().parent;
        if (const int opened = directory(below, counts, into); opened != 0) {
            return opened;
        }
    }
    const bool changeable = into->root->source->is_changeable() && into->at->descriptor() >= 0;
    return changeable ? 0 : kUpcall;
}

int LeasedNodes::prepare_change(std::uint64_t nodeid, ThreadCounts& counts, CopiedBytes bytes) {
    const auto root = root_above(nodeid);
    if (root == nullptr || !root->source->is_changeable()) {
        return kUpcall;
    }
    const auto node = nodes_.find(nodeid);
    if (root->source->kind() != Source::Kind::overlay || !node) {
        return node ? 0 : -ESTALE;
    }
    std::shared_ptr<const Directory> directory;
    if (node->identity.type == S_IFDIR) {
        const int error = directory_to_change(nodeid, counts, directory);
        return error == -ESTALE && orphans_.find(nodeid) ? 0 : error;
    }
    const auto identity = present(nodeid, node->identity);
    const bool later = bytes == CopiedBytes::later && root->source->makes_metacopies();
    if (identity.lease == root->number && (!is_metacopy(identity) || later)) {
        return 0;  // the upper layer has it
    }
    int error = -ESTALE;
    for (const auto& link : nodes_.links(nodeid)) {
        Copied copy;
        error = directory_to_change(link.parent, counts, directory);
        error = error != 0 ? error
                           : directory->at->as_union()->copy_up(
                                 link.name.c_str(), directory->within(identity), bytes, copy);
        copy.identity.lease += root->number;
        if (error == 0 && copy.identity != identity) {
            note_copy(identity, copy);
        }
        if (error != -ESTALE) {
            return error;
        }
    }
    // Another request may have copied it, and perhaps without the bytes.
    const bool copied = present(nodeid, node->identity) != identity;
    return copied ? prepare_change(nodeid, counts, bytes) : error;
}

void LeasedNodes::note_copy(const Identity& before, const Copied& copy) {
    const auto known = nodes_.nodeid_of(before);
    stand_for(known, before, copy.identity);
    made_copies_.settle(copy.record, known);
}

// Whether a name of a node leads to a file.
bool LeasedNodes::shows(std::uint64_t nodeid, const Identity& file, ThreadCounts& counts) {
    for (const auto& link : nodes_.links(nodeid)) {
        std::shared_ptr<const Directory> parent;
        Found found;
        if (directory(link.parent, counts, parent) == 0 &&
            find(*parent, link.name.c_str(), found) == 0 && found.identity == file) {
            return true;
        }
    }
    return false;
}

std::vector<CopyMemory::Record> LeasedNodes::inherit_copies() {
    std::shared_ptr<const LeaseRoot> changed;
    {
        const std::shared_lock guard(roots_lock_);
        for (const auto& [nodeid, root] : roots_) {
            changed = root->source->is_changeable() ? root : changed;
        }
    }
    std::vector<CopyMemory::Record> begun;
    if (changed == nullptr) {
        return begun;
    }
    for (auto& record : made_copies_.all()) {
        auto& [before, after, birth, number] = record.copy;
        before.lease += changed->number;
        after.lease += changed->number;
        if (record.state == CopyMemory::State::begun) {
            begun.push_back(record);
            continue;
        }
        const auto node = nodes_.find(record.nodeid);
        stand_for(node && node->identity == before ? record.nodeid : 0, before, after);
    }
    return begun;
}

// That the original is gone from its name proves nothing: a client may have removed or moved it
// before the copy was made. A name that shows the copy does. Clients may know a metacopy by the
// node of its original.
void LeasedNodes::note_shown(std::vector<CopyMemory::Record>& begun, ThreadCounts& counts) {
    std::erase_if(begun, [&](const CopyMemory::Record& record) {
        const Identity& before = record.copy.before;
        const Identity& after = record.copy.after;
        auto known_files = originals_of(before);
        known_files.push_back(before);
        const bool is_shown = std::ranges::any_of(known_files, [&](const Identity& file) {
            return shows(nodes_.nodeid_of(file), after, counts);
        });
        if (is_shown) {
            const auto known = nodes_.nodeid_of(before);
            stand_for(known, before, after);
            made_copies_.settle(record.sequence, known);
        }
        return is_shown;
    });
}

// The original of a metacopy is also that of a copy of the metacopy.
void LeasedNodes::stand_for(std::uint64_t known, const Identity& before, const Identity& copy) {
    copies_.fetch_add(1, std::memory_order_acq_rel);
    const std::lock_guard guard(copied_lock_);
    Originals originals;
    if (auto earlier = originals_.extract(before)) {
        originals = std::move(earlier.mapped());
    }
    if (known != 0) {
        originals.insert_or_assign(known, before);
    }
    for (const auto& [nodeid, original] : originals) {
        copied_.insert_or_assign(nodeid, copy);
    }
    if (!originals.empty()) {
        originals_.insert_or_assign(copy, std::move(originals));
    }
}

bool LeasedNodes::is_metacopy_node(std::uint64_t nodeid) const {
    const auto node = any_overlays_ ? nodes_.find(nodeid) : std::nullopt;
    return node && is_metacopy(node->identity);
}

bool LeasedNodes::is_copied(std::uint64_t nodeid) const {
    if (copies() == 0) {
        return false;
    }
    const std::lock_guard guard(copied_lock_);
    return copied_.contains(nodeid);
}

Identity LeasedNodes::present(std::uint64_t nodeid, const Identity& identity) const {
    if (copies() == 0) {
        return identity;
    }
    const std::lock_guard guard(copied_lock_);
    const auto found = copied_.find(nodeid);
    return found == copied_.end() ? identity : found->second;
}

Identity LeasedNodes::known_as(std::uint64_t nodeid, const Identity& found) const {
    const auto node = is_copied(nodeid) ? nodes_.find(nodeid) : std::nullopt;
    return node && present(nodeid, node->identity) == found ? node->identity : found;
}

std::vector<Identity> LeasedNodes::originals_of(const Identity& copy) const {
    if (copies() == 0) {
        return {};
    }
    const std::lock_guard guard(copied_lock_);
    std::vector<Identity> originals;
    if (const auto found = originals_.find(copy); found != originals_.end()) {
        for (const auto& [nodeid, original] : found->second) {
            originals.push_back(original);
        }
    }
    return originals;
}

}  // namespace zc
