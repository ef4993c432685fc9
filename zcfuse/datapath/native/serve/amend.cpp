#include "serve/amend.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "serve/open_reply.hpp"

namespace zc {

namespace {

// Changes a structure at the start of `bytes` in place; does nothing where it is cut short.
template <typename Structure, typename Change>
void change(std::span<std::byte> bytes, Change&& with) {
    if (bytes.size() >= sizeof(Structure)) {
        Structure structure;
        std::memcpy(&structure, bytes.data(), sizeof structure);
        with(structure);
        std::memcpy(bytes.data(), &structure, sizeof structure);
    }
}

}  // namespace

void Amender::amend(const Upcall& upcall, std::span<std::byte> reply) const {
    using abi::Opcode;
    const auto body = reply.subspan(sizeof(abi::OutHeader));
    bool failed = false;
    change<abi::OutHeader>(reply, [&](auto& header) {
        header.error = amended_error(upcall.opcode, header.error);
        failed = header.error != 0;
    });
    if (failed) {
        return;
    }
    switch (static_cast<Opcode>(upcall.opcode)) {
        case Opcode::init:
            change<abi::InitOut>(body, [&](auto& init) { negotiation_.amend(init); });
            break;
        case Opcode::open:
            change<abi::OpenOut>(body, [&](auto& open) { answer_open(upcall.nodeid, open); });
            break;
        case Opcode::create: {
            std::uint64_t nodeid = 0;
            change<abi::EntryOut>(body, [&](auto& entry) {
                nodeid = entry.nodeid;
                entry.attr.ino = numbers_.of(nodeid);
            });
            change<abi::OpenOut>(body.subspan(std::min(body.size(), sizeof(abi::EntryOut))),
                                 [&](auto& open) { answer_open(nodeid, open); });
            break;
        }
        case Opcode::lookup:
            change<abi::EntryOut>(body,
                                  [&](auto& entry) { entry.attr.ino = numbers_.of(entry.nodeid); });
            break;
        case Opcode::getattr:
        case Opcode::statx:  // asked of control as a GETATTR
        case Opcode::setattr:
            change<abi::AttrOut>(body,
                                 [&](auto& out) { out.attr.ino = numbers_.of(upcall.nodeid); });
            break;
        case Opcode::readdirplus:
            amend_entries(body);
            break;
        default:
            break;
    }
}

void Amender::answer_open(std::uint64_t nodeid, abi::OpenOut& open) const {
    answer_by(leases_.find(nodeid).get(), !leased_nodes_.is_strict(nodeid), open);
}

void Amender::amend_entries(std::span<std::byte> body) const {
    constexpr std::size_t kFixed = sizeof(abi::EntryOut) + sizeof(abi::Dirent);
    while (body.size() >= kFixed) {
        std::uint64_t ino = 0;
        std::size_t size = 0;
        change<abi::EntryOut>(body, [&](auto& entry) {
            // Without a node, control has no other place for the number.
            ino =
                entry.nodeid == 0 ? std::exchange(entry.generation, 0) : numbers_.of(entry.nodeid);
            entry.attr.ino = ino;
        });
        change<abi::Dirent>(body.subspan(sizeof(abi::EntryOut)), [&](auto& entry) {
            entry.ino = ino;
            size = (kFixed + std::size_t{entry.namelen} + 7) & ~std::size_t{7};
        });
        body = body.subspan(std::min(size, body.size()));
    }
}

int Amender::amended_error(std::uint32_t opcode, int error) const noexcept {
    if (error != -ENOSYS) {
        return error;
    }
    switch (static_cast<abi::Opcode>(opcode)) {
        case abi::Opcode::statx:  // the kernel then asks by GETATTR, which carries what we have
        case abi::Opcode::ioctl:
            return error;
        case abi::Opcode::lseek:
            // Answered by the data path where there is a lease; EINVAL makes a reader of holes take
            // one file for all data, ENOSYS would do so for all files.
            return leases_possible_ ? -EINVAL : error;
        default:
            return -EOPNOTSUPP;
    }
}

}  // namespace zc
