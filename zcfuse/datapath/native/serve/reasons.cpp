#include "serve/reasons.hpp"

#include <array>

namespace zc {

std::string_view code_of(Reason reason) noexcept {
    static constexpr std::array<std::string_view, kReasons> codes{"",
#define ZC_NAME(code) #code,
                                                                  ZC_REASONS(ZC_NAME)
#undef ZC_NAME
    };
    return codes[static_cast<std::size_t>(reason)];
}

std::string Cause::text() const {
    std::string text(code_of(reason));
    return detail.empty() ? text : text + ": " + detail;
}

}  // namespace zc
