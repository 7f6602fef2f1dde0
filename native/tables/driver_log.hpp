// The log of failed calls that cuLogs* give out, the same for every libcuda.so.1.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace outboard {

/// What went wrong in this process, as lines of text; the oldest are forgotten. Any thread may call
/// anything. Never destroyed, since programs call us from their exit handlers.
class DriverLog {
 public:
  static DriverLog& get();

  /// A call of `function` returned `result`, whose name is `error`.
  void returned(const char* function, CUresult result, const char* error);
  void say(std::string text);

  CUresult current(CUlogIterator* out);
  CUresult dump_to_file(CUlogIterator* iterator, const char* path);
  CUresult dump_to_memory(CUlogIterator* iterator, char* buffer, size_t* size);
  CUresult add(CUlogsCallback function, void* data, CUlogsCallbackHandle* out);
  CUresult remove(CUlogsCallbackHandle handle);

 private:
  struct Listener {
    CUlogsCallback function;
    void* data;
  };
  CUresult refuse(const char* why);
  /// The lines from the iterator on, or all of them; false where it is beyond the end.
  bool lines_from(const CUlogIterator* iterator, std::vector<std::string>* lines,
                  CUlogIterator* end);

  static constexpr size_t most_bytes = 25600;
  std::mutex mutex_;
  std::deque<std::string> lines_;
  size_t bytes_ = 0;
  CUlogIterator next_ = 0;  ///< number of the next line
  std::vector<std::shared_ptr<Listener>> listeners_;
};

}  // namespace outboard
