// Making memory that can be handed over, and handing it over.
// SPDX-License-Identifier: Apache-2.0
#include "client/host_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "client/process.hpp"
#include "transport/local.hpp"

namespace outboard::client {

bool HostMemory::ready() {
  const std::lock_guard guard(mutex_);
  if (!tried_) {
    tried_ = true;
    socket_ = open_();
    if (socket_) close_in_child(socket_.get());
  }
  return static_cast<bool>(socket_);
}

bool HostMemory::hand_over(uint64_t address, const UniqueFd& memory) {
  const std::lock_guard guard(mutex_);
  return socket_ && transport::send_descriptor(socket_.get(), address, memory.get());
}

namespace {

// A file beyond the program's limit on file sizes would end it with a signal.
bool may_be_file(uint64_t bytes) {
  rlimit limit = {};
  return ::getrlimit(RLIMIT_FSIZE, &limit) == 0 && bytes <= limit.rlim_cur;
}

}  // namespace

UniqueFd map_pages(const Window& place) {
  if (!may_be_file(place.bytes)) return {};
  UniqueFd fd(::memfd_create("outboard-pinned", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const auto bytes = static_cast<off_t>(place.bytes);
  // A file that cannot shrink: else the server would have to fear to touch it.
  constexpr int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  if (!fd || ::ftruncate(fd.get(), bytes) != 0 || ::fallocate(fd.get(), 0, 0, bytes) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, seals) != 0) {
    return {};
  }
  void* const at = reinterpret_cast<void*>(place.base);
  constexpr int flags = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
  if (::mmap(at, place.bytes, PROT_READ | PROT_WRITE, flags, fd.get(), 0) != at) return {};
  return fd;
}

}  // namespace outboard::client
