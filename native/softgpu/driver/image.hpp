// Module images: PTX text, fat binaries and cubins as programs hand them in.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api.hpp"

namespace softgpu {

/// The PTX texts that make one module, copied out of the program's memory.
struct Image {
  std::vector<std::string> texts;
  std::vector<std::string_view> views() const { return {texts.begin(), texts.end()}; }
};

/// Reads the image at `data` (no length: as cuModuleLoadData gets it) and picks the PTX that suits
/// compute capability `cc` (as 80). Appends to `log` why there is none.
CUresult read_image(const void* data, int cc, Image* out, std::string* log);

/// Where a length is known (cuLinkAddData, files): text need not end with NUL, fat binaries and
/// cubins are checked against it.
CUresult read_image(const void* data, size_t bytes, int cc, Image* out, std::string* log);

/// One text from several, which read_image() takes apart again.
std::string join_texts(const std::vector<std::string>& texts);

/// One LZ4 block. False where it is malformed.
bool lz4_decompress(const uint8_t* source, size_t source_bytes, std::string* out, size_t out_bytes);

}  // namespace softgpu
