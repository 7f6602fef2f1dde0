// Device printf: formatting as C does, arguments packed as CUDA's compilers pack them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

namespace softgpu::simt {

/// Serialises the texts of all threads.
class PrintfSink {
 public:
  void set(std::function<void(std::string_view)> sink);
  void write(std::string_view text);

 private:
  std::mutex mutex_;
  std::function<void(std::string_view)> sink_;
};

/// `read(offset, to, bytes)` reads the argument buffer, `string(address, out)` a text that %s
/// names; false from either ends it with false. `arguments` counts what was converted.
bool format_device_text(std::string_view format,
                        const std::function<bool(uint64_t, void*, uint32_t)>& read,
                        const std::function<bool(uint64_t, std::string*)>& string, std::string* out,
                        int* arguments);

}  // namespace softgpu::simt
