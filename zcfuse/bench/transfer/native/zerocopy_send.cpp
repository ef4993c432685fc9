// send(2) with MSG_ZEROCOPY from a mapping of the file. The kernel pins the pages. For each
// send it reports on the error queue when it is done, and whether it copied them after all (as on
// loopback, where the receiver must not hold the sender's memory).
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

// Needs <time.h> before it.
#include <linux/errqueue.h>

#include <array>
#include <cstring>
#include <vector>

#include "delivery.hpp"
#include "resources.hpp"

namespace zc::transfer {

namespace {

class ZerocopySend final : public Method {
  public:
    explicit ZerocopySend(const Job& job) : job_(job), file_(open_file(job.path)) {
        const int on = 1;
        granted("setsockopt with SO_ZEROCOPY",
                [&] { return ::setsockopt(job_.sink, SOL_SOCKET, SO_ZEROCOPY, &on, sizeof on); });
    }

    void run(Tally& tally) override {
        const auto mapping = Pages::of_file(file_.get(), job_.size);
        while (tally.delivered < job_.size) {
            send(mapping.part(tally.delivered, next_block(job_, tally.delivered)), tally);
        }
        while (completed_ < sent_.size()) {
            await_completions(tally);
        }
    }

  private:
    void send(std::span<const std::byte> bytes, Tally& tally) {
        ssize_t count = ::send(job_.sink, bytes.data(), bytes.size(), MSG_ZEROCOPY);
        ++tally.calls;
        if (count >= 0) {
            sent_.push_back(static_cast<std::size_t>(count));
            tally.delivered += static_cast<std::size_t>(count);
        } else if (errno == ENOBUFS && completed_ < sent_.size()) {
            await_completions(tally);  // net.core.optmem_max holds this many
        } else if (errno != EINTR) {
            refuse(errno, "send with MSG_ZEROCOPY");
        }
    }

    void await_completions(Tally& tally) {
        pollfd socket{job_.sink, 0, 0};  // the error queue is POLLERR, which is always reported
        granted("poll", [&] { return ::poll(&socket, 1, -1); });
        while (read_completion(tally)) {
        }
    }

    bool read_completion(Tally& tally) {
        alignas(cmsghdr) std::array<char, 128> control{};
        msghdr message{};
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        ++tally.calls;
        if (::recvmsg(job_.sink, &message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                refuse(errno, "recvmsg from the error queue");
            }
            return errno == EINTR;
        }
        for (auto* item = CMSG_FIRSTHDR(&message); item != nullptr;
             item = CMSG_NXTHDR(&message, item)) {
            sock_extended_err told{};
            std::memcpy(&told, CMSG_DATA(item), sizeof told);
            count(told, tally);
        }
        return true;
    }

    void count(const sock_extended_err& told, Tally& tally) {
        if (told.ee_origin != SO_EE_ORIGIN_ZEROCOPY || told.ee_errno != 0) {
            refuse(told.ee_errno != 0 ? static_cast<int>(told.ee_errno) : EPROTO,
                   "completion of MSG_ZEROCOPY");
        }
        // Both ends of the range are included.
        for (std::size_t id = told.ee_info; id <= told.ee_data && id < sent_.size(); ++id) {
            ++completed_;
            tally.copied_late += (told.ee_code & SO_EE_CODE_ZEROCOPY_COPIED) != 0 ? sent_[id] : 0;
        }
    }

    Job job_;
    sys::UniqueFd file_;
    std::vector<std::size_t> sent_;  // bytes, by the kernel's number of each send
    std::size_t completed_ = 0;
};

}  // namespace

std::unique_ptr<Method> zerocopy_send(const Job& job) {
    return std::make_unique<ZerocopySend>(job);
}

}  // namespace zc::transfer
