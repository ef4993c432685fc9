#include "sys/faults.hpp"

#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>

namespace zc::sys {

std::atomic<bool> faults_armed{false};

namespace {

struct Rule {
    Fault what = 0;
    std::uint64_t after = 0;
    std::uint64_t count = std::numeric_limits<std::uint64_t>::max();
};

constexpr auto kSlowness = std::chrono::milliseconds(500);
constexpr std::size_t kCalls = static_cast<std::size_t>(Call::count_);
constexpr std::array<std::string_view, kCalls> kCallNames{
    "preadv",      "splice_in",      "splice_out",   "vmsplice",   "mmap",
    "mlock",       "madvise",        "writev",       "read",       "send",
    "recv",        "backing_open",   "clone",        "setsockopt", "pipe",
    "dup",         "open",           "statx",        "getdents",   "preadv_nowait",
    "uring_setup", "uring_register", "uring_commit", "change",     "pwrite",
    "fsync"};
constexpr std::array<std::pair<std::string_view, Fault>, 21> kWhats{
    {{"short", kShort},   {"slow", kSlow},     {"EIO", -EIO},       {"ENOTSUPP", -524},
     {"EINTR", -EINTR},   {"EAGAIN", -EAGAIN}, {"EMFILE", -EMFILE}, {"ENOSPC", -ENOSPC},
     {"ENOMEM", -ENOMEM}, {"EINVAL", -EINVAL}, {"EFAULT", -EFAULT}, {"ENOBUFS", -ENOBUFS},
     {"EPERM", -EPERM},   {"ELOOP", -ELOOP},   {"ENOTTY", -ENOTTY}, {"EBADF", -EBADF},
     {"EACCES", -EACCES}, {"EXDEV", -EXDEV},   {"EDQUOT", -EDQUOT}, {"EROFS", -EROFS},
     {"EFBIG", -EFBIG}}};

std::mutex rules_lock;
std::array<Rule, kCalls> rules;

std::string_view take(std::string_view& text, char separator) {
    const auto end = text.find(separator);
    const auto piece = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    return piece;
}

bool parse_number(std::string_view text, std::uint64_t& into) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
    return error == std::errc{} && end == text.data() + text.size();
}

bool parse_rule(std::string_view text, std::array<Rule, kCalls>& into) {
    const auto call = take(text, ':');
    const auto what = take(text, ':');
    Rule rule;
    for (const auto& [name, fault] : kWhats) {
        if (name == what) {
            rule.what = fault;
        }
    }
    while (!text.empty()) {
        auto option = take(text, ':');
        const auto key = take(option, '=');
        if (!(key == "after" && parse_number(option, rule.after)) &&
            !(key == "count" && parse_number(option, rule.count))) {
            return false;
        }
    }
    for (std::size_t i = 0; i < kCalls; ++i) {
        if (kCallNames[i] == call && rule.what != 0) {
            into[i] = rule;
            return true;
        }
    }
    return false;
}

Fault take_fault(Call call) {
    const std::lock_guard guard(rules_lock);
    Rule& rule = rules[static_cast<std::size_t>(call)];
    if (rule.what == 0) {
        return 0;
    }
    if (rule.after > 0) {
        --rule.after;
        return 0;
    }
    if (rule.count == 0) {
        return 0;
    }
    --rule.count;
    return rule.what;
}

}  // namespace

Fault next_fault(Call call) noexcept {
    const Fault what = take_fault(call);
    if (what != kSlow) {
        return what;
    }
    std::this_thread::sleep_for(kSlowness);
    return 0;
}

bool is_slow_next(Call call) noexcept {
    const std::lock_guard guard(rules_lock);
    const Rule& rule = rules[static_cast<std::size_t>(call)];
    return rule.what == kSlow && rule.after == 0 && rule.count > 0;
}

bool arm_faults(std::string_view text) {
    std::array<Rule, kCalls> parsed{};
    bool understood = true;
    bool any = false;
    while (!text.empty()) {
        understood = parse_rule(take(text, ','), parsed) && understood;
        any = true;
    }
    const std::lock_guard guard(rules_lock);
    rules = understood ? parsed : std::array<Rule, kCalls>{};
    faults_armed.store(any && understood, std::memory_order_relaxed);
    return understood;
}

}  // namespace zc::sys
