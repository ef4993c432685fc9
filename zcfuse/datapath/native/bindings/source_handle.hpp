// A source that Python holds.
#pragma once

#include <memory>

#include "serve/sources/source.hpp"

namespace zc::bindings {

struct SourceHandle {
    std::shared_ptr<const Source> source;
};

}  // namespace zc::bindings
