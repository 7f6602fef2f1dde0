// The session's share page.
// SPDX-License-Identifier: Apache-2.0
#include "worker/share.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace outboard::worker {
namespace {

constexpr size_t devices_at = 1;
constexpr size_t slots_at = 2;
constexpr size_t limits_at = 8;
constexpr size_t fields_at = 32;

// Held by the kernel for the process: it goes when a worker dies inside, so that a killed worker
// leaves no lock behind. No other descriptor of the page may be closed meanwhile.
class PageLock {
 public:
  explicit PageLock(int fd) : fd_(fd) { held_ = change(F_WRLCK); }
  ~PageLock() {
    if (held_) change(F_UNLCK);
  }
  PageLock(const PageLock&) = delete;
  PageLock& operator=(const PageLock&) = delete;
  bool held() const { return held_; }

 private:
  bool change(short type) const {
    struct flock lock = {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_len = 1;
    int status = 0;
    do {
      status = ::fcntl(fd_, F_SETLKW, &lock);
    } while (status != 0 && errno == EINTR);
    return status == 0;
  }
  int fd_;
  bool held_ = false;
};

uint64_t load(const uint64_t* field) { return __atomic_load_n(field, __ATOMIC_ACQUIRE); }
void store(uint64_t* field, uint64_t value) { __atomic_store_n(field, value, __ATOMIC_RELEASE); }

}  // namespace

Share::~Share() {
  if (page_) ::munmap(page_, page_bytes);
}

bool Share::open(UniqueFd page, unsigned slot, std::string* error) {
  struct stat status = {};
  if (::fstat(page.get(), &status) != 0 || status.st_size < static_cast<off_t>(page_bytes)) {
    *error = "the share page is too short";
    return false;
  }
  void* mapped = ::mmap(nullptr, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, page.get(), 0);
  if (mapped == MAP_FAILED) {
    *error = std::string("the share page cannot be mapped: ") + std::strerror(errno);
    return false;
  }
  page_ = static_cast<uint64_t*>(mapped);
  const uint64_t devices = load(page_ + devices_at);
  if (load(page_) != magic || devices == 0 || devices > max_devices || slot >= max_slots ||
      slot >= load(page_ + slots_at)) {
    *error = "the share page has no such slot, or is of another version";
    return false;
  }
  fd_ = std::move(page);
  slot_ = slot;
  devices_ = static_cast<unsigned>(devices);
  return true;
}

uint64_t* Share::field(unsigned slot, unsigned device) const {
  return page_ + fields_at + size_t{max_devices} * slot + device;
}

uint64_t Share::sum(unsigned device) const {
  uint64_t total = 0;
  for (unsigned slot = 0; slot < max_slots; ++slot) {
    if (__builtin_add_overflow(total, load(field(slot, device)), &total)) return UINT64_MAX;
  }
  return total;
}

uint64_t Share::limit(unsigned device) const {
  return device < devices_ ? load(page_ + limits_at + device) : 0;
}

uint64_t Share::held(unsigned device) const { return device < devices_ ? sum(device) : 0; }

uint64_t Share::own(unsigned device) const {
  return device < devices_ ? load(field(slot_, device)) : 0;
}

uint64_t* Share::usage() const {
  constexpr size_t word = sizeof(uint64_t);
  return page_ ? page_ + (usage_at_bytes + usage_bytes * slot_) / word : nullptr;
}

bool Share::reserve(unsigned device, uint64_t bytes) {
  if (device >= devices_) return false;
  const PageLock lock(fd_.get());
  if (!lock.held()) return false;
  const uint64_t held = sum(device);
  const uint64_t most = limit(device);
  if (held > most || bytes > most - held) return false;
  add(device, bytes);
  return true;
}

void Share::count(unsigned device, uint64_t bytes) {
  if (device >= devices_) return;
  const PageLock lock(fd_.get());
  add(device, bytes);
}

// With the lock held.
void Share::add(unsigned device, uint64_t bytes) {
  store(field(slot_, device), own(device) + bytes);
  uint64_t* peak = usage() + UsageLayout::peak + device;
  if (own(device) > load(peak)) store(peak, own(device));
}

void Share::release(unsigned device, uint64_t bytes) {
  if (device >= devices_) return;
  const PageLock lock(fd_.get());
  store(field(slot_, device), own(device) - std::min(bytes, own(device)));
}

UniqueFd Share::make(const uint64_t* limits, unsigned devices) {
  UniqueFd fd(::memfd_create("outboard-share", MFD_CLOEXEC));
  if (!fd || ::ftruncate(fd.get(), page_bytes) != 0) return UniqueFd();
  uint64_t head[limits_at + max_devices] = {};
  head[0] = magic;
  head[devices_at] = devices;
  head[slots_at] = max_slots;
  for (unsigned device = 0; device < devices; ++device) head[limits_at + device] = limits[device];
  if (::pwrite(fd.get(), head, sizeof head, 0) != static_cast<ssize_t>(sizeof head)) {
    return UniqueFd();
  }
  return fd;
}

}  // namespace outboard::worker
