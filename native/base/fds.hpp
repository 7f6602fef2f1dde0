// Owned file descriptors, and moving ours out of the way of programs that close low ones.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <utility>

namespace outboard {

/// Closes its descriptor when it goes.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
  }

 private:
  int fd_ = -1;
};

/// Daemons close low descriptors, shells use them: ours go above 700, close-on-exec. Keeps the old
/// one where the limit on descriptors allows none so high.
inline UniqueFd raised(UniqueFd fd) {
  const int high = ::fcntl(fd.get(), F_DUPFD_CLOEXEC, 700);
  return high >= 0 ? UniqueFd(high) : std::move(fd);
}

}  // namespace outboard
