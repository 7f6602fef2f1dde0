// Device printf.
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

bool DeviceText::capture_stdout() {
  UniqueFd file(::memfd_create("outboard-stdout", MFD_CLOEXEC));
  if (!file) return false;
  // Append: after the file is cut the next write begins at its new end.
  const int flags = ::fcntl(file.get(), F_GETFL);
  if (flags < 0 || ::fcntl(file.get(), F_SETFL, flags | O_APPEND) != 0) return false;
  if (::dup2(file.get(), STDOUT_FILENO) < 0) return false;
  file_ = std::move(file);
  return true;
}

std::string DeviceText::take() {
  std::fflush(stdout);
  struct stat status = {};
  if (!file_ || ::fstat(file_.get(), &status) != 0) return {};
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size <= taken_bytes_) return {};
  std::string text(std::min(size - taken_bytes_, most_bytes), '\0');
  const ssize_t count =
      ::pread(file_.get(), text.data(), text.size(), static_cast<off_t>(taken_bytes_));
  text.resize(count > 0 ? static_cast<size_t>(count) : 0);
  taken_bytes_ += text.size();
  if (taken_bytes_ == size && size > keep_bytes && ::ftruncate(file_.get(), 0) == 0) {
    taken_bytes_ = 0;
  }
  return text;
}

}  // namespace outboard::worker
