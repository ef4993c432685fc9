#include "sys/fanotify.hpp"

#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace zc::sys {

namespace {

constexpr std::uint64_t kAllChanges = kNameChanges | kDataChanges | kSelfChanges | FAN_ONDIR;

int or_errno(int result) noexcept {
    return result < 0 ? -errno : result;
}

std::uint64_t number_of(const void* fsid) noexcept {
    std::array<std::uint32_t, 2> halves{};
    std::memcpy(halves.data(), fsid, sizeof halves);
    return std::uint64_t{halves[0]} << 32 | halves[1];
}

void take(fanotify_event_info_fid* info, Change& into) noexcept {
    auto* handle = reinterpret_cast<struct ::file_handle*>(info->handle);
    into.filesystem = number_of(&info->fsid);
    switch (info->hdr.info_type) {
        case FAN_EVENT_INFO_TYPE_DFID_NAME:
            into.directory = handle;
            into.name = reinterpret_cast<const char*>(handle->f_handle) + handle->handle_bytes;
            break;
        case FAN_EVENT_INFO_TYPE_DFID:
            into.directory = handle;
            break;
        case FAN_EVENT_INFO_TYPE_FID:
            into.file = handle;
            break;
        default:
            break;
    }
}

}  // namespace

int ChangeQueue::open() noexcept {
    const int group =
        or_errno(::fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_REPORT_DFID_NAME |
                                     FAN_REPORT_FID | FAN_REPORT_TARGET_FID,
                                 O_RDONLY | O_CLOEXEC));
    if (group < 0) {
        return group;
    }
    group_.reset(group);
    return 0;
}

int ChangeQueue::watch_filesystem(int directory) noexcept {
    return or_errno(::fanotify_mark(group_.get(), FAN_MARK_ADD | FAN_MARK_FILESYSTEM, kAllChanges,
                                    directory, nullptr));
}

int ChangeQueue::watch_names(int directory) noexcept {
    return or_errno(::fanotify_mark(group_.get(), FAN_MARK_ADD | FAN_MARK_ONLYDIR, FAN_CREATE,
                                    directory, nullptr));
}

ssize_t ChangeQueue::read(std::span<std::byte> buffer) noexcept {
    const auto n = ::read(group_.get(), buffer.data(), buffer.size());
    return n < 0 ? -errno : n;
}

bool ChangeQueue::next(std::span<std::byte>& bytes, Change& into) noexcept {
    fanotify_event_metadata event{};
    if (bytes.size() < sizeof event) {
        return false;
    }
    std::memcpy(&event, bytes.data(), sizeof event);
    if (event.vers != FANOTIFY_METADATA_VERSION || event.event_len < sizeof event ||
        event.event_len > bytes.size()) {
        return false;
    }
    into = {};
    into.mask = event.mask;
    std::size_t at = event.metadata_len;
    while (at + sizeof(fanotify_event_info_fid) <= event.event_len) {
        auto* info = reinterpret_cast<fanotify_event_info_fid*>(bytes.data() + at);
        if (info->hdr.len == 0) {
            break;
        }
        take(info, into);
        at += info->hdr.len;
    }
    bytes = bytes.subspan(event.event_len);
    return true;
}

std::uint64_t filesystem_id(int fd) noexcept {
    struct ::statfs status {};
    return ::fstatfs(fd, &status) == 0 ? number_of(&status.f_fsid) : 0;
}

bool reports_changes(int fd) noexcept {
    static constexpr std::array<std::uint32_t, 4> known{0xEF53, 0x58465342, 0x9123683E, 0x01021994};
    struct ::statfs status {};
    return ::fstatfs(fd, &status) == 0 &&
           std::find(known.begin(), known.end(), static_cast<std::uint32_t>(status.f_type)) !=
               known.end();
}

int handle_of(int fd, struct ::file_handle& into) noexcept {
    into.handle_bytes = MAX_HANDLE_SZ;
    int mount = 0;
    return or_errno(::name_to_handle_at(fd, "", &into, &mount, AT_EMPTY_PATH));
}

int open_handle(int mount, struct ::file_handle* handle, UniqueFd& into) noexcept {
    const int fd = or_errno(::open_by_handle_at(mount, handle, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (fd < 0) {
        return fd;
    }
    into.reset(fd);
    return 0;
}

bool same_handle(const struct ::file_handle& one, const struct ::file_handle& other) noexcept {
    return one.handle_type == other.handle_type && one.handle_bytes == other.handle_bytes &&
           std::memcmp(one.f_handle, other.f_handle, one.handle_bytes) == 0;
}

}  // namespace zc::sys
