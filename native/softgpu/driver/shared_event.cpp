// Events between processes.
// SPDX-License-Identifier: Apache-2.0
#include "shared_event.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace softgpu {
namespace {

constexpr size_t kPage = 4096;

}  // namespace

std::shared_ptr<SharedEvent> SharedEvent::make() {
  int fd = memfd_create("softgpu-event", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, kPage) != 0) {
    if (fd >= 0) close(fd);
    return nullptr;
  }
  return open(fd);
}

std::shared_ptr<SharedEvent> SharedEvent::open(int fd) {
  struct stat info{};
  void* page = MAP_FAILED;
  if (fstat(fd, &info) == 0 && info.st_size == static_cast<off_t>(kPage)) {
    page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  if (page == MAP_FAILED) {
    close(fd);
    return nullptr;
  }
  return std::shared_ptr<SharedEvent>(new SharedEvent(fd, static_cast<Page*>(page)));
}

SharedEvent::~SharedEvent() {
  munmap(page_, kPage);
  close(fd_);
}

uint64_t SharedEvent::begin_record() {
  page_->process.store(getpid());
  return page_->latest.fetch_add(1) + 1;
}

void SharedEvent::complete(uint64_t number) {
  uint64_t done = page_->done.load();
  while (done < number && !page_->done.compare_exchange_weak(done, number)) {
  }
}

bool SharedEvent::abandoned() const {
  int process = page_->process.load();
  return process != 0 && kill(process, 0) != 0 && errno == ESRCH;
}

}  // namespace softgpu
