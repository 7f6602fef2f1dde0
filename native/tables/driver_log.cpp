// The log of failed calls that cuLogs* give out, the same for every libcuda.so.1.
// SPDX-License-Identifier: Apache-2.0
#include "driver_log.hpp"

#include <pthread.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>

namespace outboard {
namespace {

// A listener whose own calls fail is not told of them.
thread_local bool telling = false;

std::string line_of(const std::string& text) {
  timespec now{};
  tm local{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  ::localtime_r(&now.tv_sec, &local);
  char head[80];
  std::snprintf(head, sizeof head, "[%02d:%02d:%02d.%03ld][%lu][CUDA][E] ", local.tm_hour,
                local.tm_min, local.tm_sec, now.tv_nsec / 1'000'000,
                static_cast<unsigned long>(::pthread_self()));
  return head + text + "\n";
}

}  // namespace

DriverLog& DriverLog::get() {
  static auto* const log = new DriverLog;
  return *log;
}

void DriverLog::returned(const char* function, CUresult result, const char* error) {
  say("Returning " + std::to_string(static_cast<int>(result)) + " (" + error + ") from " +
      function);
}

void DriverLog::say(std::string text) {
  std::vector<std::shared_ptr<Listener>> listeners;
  {
    const std::lock_guard guard(mutex_);
    lines_.push_back(line_of(text));
    bytes_ += lines_.back().size();
    ++next_;
    while (bytes_ > most_bytes) {
      bytes_ -= lines_.front().size();
      lines_.pop_front();
    }
    if (!telling) listeners = listeners_;
  }
  telling = telling || !listeners.empty();
  for (const auto& listener : listeners) {
    listener->function(listener->data, CU_LOG_LEVEL_ERROR, text.data(), text.size());
  }
  if (!listeners.empty()) telling = false;
}

CUresult DriverLog::refuse(const char* why) {
  say(why);
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult DriverLog::current(CUlogIterator* out) {
  if (out == nullptr) return refuse("Iterator cannot be NULL");
  const std::lock_guard guard(mutex_);
  *out = next_;
  return CUDA_SUCCESS;
}

bool DriverLog::lines_from(const CUlogIterator* iterator, std::vector<std::string>* lines,
                           CUlogIterator* end) {
  const std::lock_guard guard(mutex_);
  *end = next_;
  if (iterator != nullptr && *iterator > next_) return false;
  const auto wanted = iterator != nullptr ? next_ - *iterator : next_;
  const auto there = std::min<size_t>(wanted, lines_.size());
  if (there < wanted) lines->push_back("The oldest messages were overwritten and are missing\n");
  lines->insert(lines->end(), lines_.end() - static_cast<ptrdiff_t>(there), lines_.end());
  return true;
}

CUresult DriverLog::dump_to_file(CUlogIterator* iterator, const char* path) {
  std::vector<std::string> lines;
  CUlogIterator end = 0;
  if (path == nullptr) return refuse("pathToFile cannot be NULL");
  if (!lines_from(iterator, &lines, &end)) {
    return refuse("CUlogIterator is beyond the end of the logs");
  }
  FILE* file = std::fopen(path, "we");
  if (file == nullptr) {
    return refuse((std::string("Unable to open file at ") + path + " for dumping logs").c_str());
  }
  for (const std::string& line : lines) std::fwrite(line.data(), 1, line.size(), file);
  if (std::fclose(file) != 0) return refuse("The logs could not be written");
  if (iterator != nullptr) *iterator = end;
  return CUDA_SUCCESS;
}

CUresult DriverLog::dump_to_memory(CUlogIterator* iterator, char* buffer, size_t* size) {
  constexpr std::string_view incomplete =
      "The provided buffer is not large enough to hold all messages. Some messages will be "
      "missing\n";
  std::vector<std::string> lines;
  CUlogIterator end = 0;
  if (buffer == nullptr) return refuse("buffer cannot be NULL");
  if (size == nullptr) return refuse("Memory buffer size must be given for log dump");
  const size_t room = *size;
  *size = 0;
  if (!lines_from(iterator, &lines, &end)) {
    return refuse("CUlogIterator is beyond the end of the logs");
  }
  size_t bytes = 1;  // NUL
  for (const std::string& line : lines) bytes += line.size();
  auto first = lines.begin();
  if (bytes > room) {
    // The newest ones, behind a line that says so.
    bytes = incomplete.size() + 1;
    for (first = lines.end(); first != lines.begin() && bytes + first[-1].size() <= room; --first) {
      bytes += first[-1].size();
    }
    if (first == lines.end()) {
      return refuse("Provided buffer is not large enough to write any logs to");
    }
    std::memcpy(buffer, incomplete.data(), incomplete.size());
    *size = incomplete.size();
  }
  for (; first != lines.end(); ++first) {
    std::memcpy(buffer + *size, first->data(), first->size());
    *size += first->size();
  }
  if (room != 0) buffer[*size] = '\0';
  if (iterator != nullptr) *iterator = end;
  return CUDA_SUCCESS;
}

CUresult DriverLog::add(CUlogsCallback function, void* data, CUlogsCallbackHandle* out) {
  if (function == nullptr) return refuse("callbackFunc cannot be NULL");
  const std::lock_guard guard(mutex_);
  listeners_.push_back(std::make_shared<Listener>(Listener{function, data}));
  if (out != nullptr) *out = reinterpret_cast<CUlogsCallbackHandle>(listeners_.back().get());
  return CUDA_SUCCESS;
}

CUresult DriverLog::remove(CUlogsCallbackHandle handle) {
  const std::lock_guard guard(mutex_);
  const auto found = std::erase_if(listeners_, [handle](const auto& one) {
    return reinterpret_cast<CUlogsCallbackHandle>(one.get()) == handle;
  });
  return found != 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace outboard
