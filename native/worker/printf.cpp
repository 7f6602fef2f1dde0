// What kernels say.
// SPDX-License-Identifier: Apache-2.0
#include "worker/printf.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace outboard::worker {
namespace {

// The driver holds at most a few MiB of text itself; more than this at once is read in turns.
constexpr uint64_t most_bytes = 4 << 20;
// Past this the file is begun anew, so that a program that prints for days takes no memory here.
constexpr uint64_t keep_bytes = 16 << 20;

}  // namespace

bool DeviceText::Capture::open(const char* name) {
  file = UniqueFd(::memfd_create(name, MFD_CLOEXEC));
  if (!file) return false;
  // Append: after the file is cut the next write begins at its new end.
  const int flags = ::fcntl(file.get(), F_GETFL);
  return flags >= 0 && ::fcntl(file.get(), F_SETFL, flags | O_APPEND) == 0;
}

std::string DeviceText::Capture::take() {
  struct stat status = {};
  if (!file || ::fstat(file.get(), &status) != 0) return {};
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size <= taken_bytes) return {};
  std::string text(std::min(size - taken_bytes, most_bytes), '\0');
  const ssize_t count =
      ::pread(file.get(), text.data(), text.size(), static_cast<off_t>(taken_bytes));
  text.resize(count > 0 ? static_cast<size_t>(count) : 0);
  taken_bytes += text.size();
  if (taken_bytes == size && size > keep_bytes && ::ftruncate(file.get(), 0) == 0) {
    taken_bytes = 0;
  }
  return text;
}

bool DeviceText::capture() {
  if (!output_.open("outboard-stdout") || ::dup2(output_.file.get(), STDOUT_FILENO) < 0 ||
      !errors_.open("outboard-stderr")) {
    return false;
  }
  UniqueFd copy(::fcntl(errors_.file.get(), F_DUPFD_CLOEXEC, 0));
  std::FILE* stream = copy ? ::fdopen(copy.get(), "a") : nullptr;
  if (!stream) return false;
  static_cast<void>(copy.release());  // the stream's, which is never closed
  std::setvbuf(stream, nullptr, _IONBF, 0);
  stderr = stream;  // a variable in the GNU C Library
  return true;
}

std::string DeviceText::take() {
  std::fflush(stdout);
  return output_.take();
}

std::string DeviceText::take_errors() {
  std::string text = errors_.take();
  [[maybe_unused]] const ssize_t logged = ::write(STDERR_FILENO, text.data(), text.size());
  return text;
}

}  // namespace outboard::worker
