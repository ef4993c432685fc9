// Three layers on disk for the fuzzer's union: whiteouts and opaque directories of every kind,
// merged directories, a name that control must resolve. They exist in a new directory below the
// current one while the object lives.
#pragma once

#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "files.hpp"
#include "serve/nodes/leased_nodes.hpp"
#include "serve/sources/directory_source.hpp"
#include "serve/sources/overlay.hpp"

namespace zc::test {

class FuzzLayers {
  public:
    FuzzLayers() {
        std::string pattern = "zcfuse-layers-XXXXXX";
        checked(::mkdtemp(pattern.data()) == nullptr ? -1 : 0, "mkdtemp");
        base_ = pattern;
        for (const char* layer : {"top", "middle", "bottom"}) {
            for (const char* directory : {"merged/below", "opaque", "marked"}) {
                std::filesystem::create_directories(base_ / layer / directory);
            }
            put(std::string(layer) + "/merged/" + layer);
            put(std::string(layer) + "/opaque/" + layer);
            put(std::string(layer) + "/marked/" + layer);
        }
        put("bottom/file");
        put("bottom/gone");
        put("middle/merged/hidden");
        mark_whiteouts();
        mark_directories();
    }
    FuzzLayers(const FuzzLayers&) = delete;
    FuzzLayers& operator=(const FuzzLayers&) = delete;
    ~FuzzLayers() {
        std::error_code ignored;
        std::filesystem::remove_all(base_, ignored);
    }

    // With `lowest` below the three.
    void lease(LeasedNodes& leased_nodes, std::uint64_t nodeid,
               std::shared_ptr<const Source> lowest) const {
        OverlaySource::Layers layers;
        for (const char* layer : {"top", "middle", "bottom"}) {
            const sys::UniqueFd fd(
                ::open((base_ / layer).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
            layers.push_back(DirectorySource::open(fd.get()));
        }
        layers.push_back(std::move(lowest));
        leased_nodes.lease(nodeid, OverlaySource::make(std::move(layers), /*sees_trusted=*/true));
    }

  private:
    void put(const std::string& name) const { std::ofstream(base_ / name) << name; }

    // Without the right to make a device or extended attributes, the other marks remain.
    void mark_whiteouts() const {
        put("top/merged/.wh.hidden");
        ::mknod((base_ / "top" / "gone").c_str(), S_IFCHR, ::makedev(0, 0));
        put("middle/merged/empty");
        mark("middle/merged/empty", "user.overlay.whiteout", "");
    }
    void mark_directories() const {
        put("middle/opaque/.wh..wh..opq");
        mark("middle/marked", "user.overlay.opaque", "y");
        mark("top/merged/below", "user.overlay.redirect", "/merged");
        put("top/metacopy");
        mark("top/metacopy", "user.overlay.metacopy", "");
    }
    void mark(const char* name, const char* attribute, std::string_view value) const {
        ::setxattr((base_ / name).c_str(), attribute, value.data(), value.size(), 0);
    }

    std::filesystem::path base_;
};

}  // namespace zc::test
