#include "abi/fuse.hpp"

#include <array>

#include "abi/fuse_changes.hpp"

namespace zc::abi {

std::string_view opcode_name(std::uint32_t opcode) noexcept {
    static constexpr std::array<std::string_view, 54> names{
        "OTHER",        "LOOKUP",        "FORGET",
        "GETATTR",      "SETATTR",       "READLINK",
        "SYMLINK",      "OTHER",         "MKNOD",
        "MKDIR",        "UNLINK",        "RMDIR",
        "RENAME",       "LINK",          "OPEN",
        "READ",         "WRITE",         "STATFS",
        "RELEASE",      "OTHER",         "FSYNC",
        "SETXATTR",     "GETXATTR",      "LISTXATTR",
        "REMOVEXATTR",  "FLUSH",         "INIT",
        "OPENDIR",      "READDIR",       "RELEASEDIR",
        "FSYNCDIR",     "GETLK",         "SETLK",
        "SETLKW",       "ACCESS",        "CREATE",
        "INTERRUPT",    "BMAP",          "DESTROY",
        "IOCTL",        "POLL",          "NOTIFY_REPLY",
        "BATCH_FORGET", "FALLOCATE",     "READDIRPLUS",
        "RENAME2",      "LSEEK",         "COPY_FILE_RANGE",
        "SETUPMAPPING", "REMOVEMAPPING", "SYNCFS",
        "TMPFILE",      "STATX",         "COPY_FILE_RANGE_64"};
    return opcode < names.size() ? names[opcode] : names[0];
}

std::string_view entry_name(const InHeader& header, std::span<const std::byte> body) noexcept {
    std::size_t before = 0;  // bytes of the structure that precedes the name
    switch (static_cast<Opcode>(header.opcode)) {
        case Opcode::lookup:
        case Opcode::unlink:
        case Opcode::rmdir:
        case Opcode::symlink:
            break;
        case Opcode::mkdir:
            before = sizeof(MkdirIn);
            break;
        case Opcode::link:
            before = sizeof(LinkIn);
            break;
        case Opcode::rename:
            before = sizeof(RenameIn);
            break;
        case Opcode::rename2:
            before = sizeof(Rename2In);
            break;
        case Opcode::mknod:
            before = sizeof(MknodIn);
            break;
        case Opcode::create:
            before = sizeof(CreateIn);
            break;
        default:
            return {};
    }
    if (body.size() <= before) {
        return {};
    }
    const auto rest = body.subspan(before);
    const std::string_view text{reinterpret_cast<const char*>(rest.data()), rest.size()};
    return text.substr(0, text.find('\0'));
}

std::string_view init_flag_name(unsigned bit) noexcept {
    static constexpr std::array<std::string_view, 43> names{"ASYNC_READ",
                                                            "POSIX_LOCKS",
                                                            "FILE_OPS",
                                                            "ATOMIC_O_TRUNC",
                                                            "EXPORT_SUPPORT",
                                                            "BIG_WRITES",
                                                            "DONT_MASK",
                                                            "SPLICE_WRITE",
                                                            "SPLICE_MOVE",
                                                            "SPLICE_READ",
                                                            "FLOCK_LOCKS",
                                                            "HAS_IOCTL_DIR",
                                                            "AUTO_INVAL_DATA",
                                                            "DO_READDIRPLUS",
                                                            "READDIRPLUS_AUTO",
                                                            "ASYNC_DIO",
                                                            "WRITEBACK_CACHE",
                                                            "NO_OPEN_SUPPORT",
                                                            "PARALLEL_DIROPS",
                                                            "HANDLE_KILLPRIV",
                                                            "POSIX_ACL",
                                                            "ABORT_ERROR",
                                                            "MAX_PAGES",
                                                            "CACHE_SYMLINKS",
                                                            "NO_OPENDIR_SUPPORT",
                                                            "EXPLICIT_INVAL_DATA",
                                                            "MAP_ALIGNMENT",
                                                            "SUBMOUNTS",
                                                            "HANDLE_KILLPRIV_V2",
                                                            "SETXATTR_EXT",
                                                            "INIT_EXT",
                                                            "INIT_RESERVED",
                                                            "SECURITY_CTX",
                                                            "HAS_INODE_DAX",
                                                            "CREATE_SUPP_GROUP",
                                                            "HAS_EXPIRE_ONLY",
                                                            "DIRECT_IO_ALLOW_MMAP",
                                                            "PASSTHROUGH",
                                                            "NO_EXPORT_SUPPORT",
                                                            "HAS_RESEND",
                                                            "ALLOW_IDMAP",
                                                            "OVER_IO_URING",
                                                            "REQUEST_TIMEOUT"};
    return bit < names.size() ? names[bit] : "RESERVED";
}

}  // namespace zc::abi
