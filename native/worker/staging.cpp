// Pinned host memory.
// SPDX-License-Identifier: Apache-2.0
#include "worker/staging.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "worker/driver.hpp"

namespace outboard::worker {
namespace {

size_t whole_pages(size_t bytes) { return (bytes + 4095) & ~size_t{4095}; }

}  // namespace

std::shared_ptr<Pinned> Pinned::make(const Driver& driver, size_t bytes, bool must_be_pinned) {
  const size_t whole = whole_pages(bytes);
  void* host = ::mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (host == MAP_FAILED) return nullptr;
  std::shared_ptr<Pinned> pinned(new Pinned());
  pinned->host_ = static_cast<std::byte*>(host);
  pinned->bytes_ = bytes;
  pinned->device_ = reinterpret_cast<CUdeviceptr>(host);
  constexpr unsigned flags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
  if (driver.cuMemHostRegister_v2(host, whole, flags) == CUDA_SUCCESS) {
    pinned->registered_ = true;
    CUdeviceptr device = 0;
    if (driver.cuMemHostGetDevicePointer_v2(&device, host, 0) == CUDA_SUCCESS) {
      pinned->device_ = device;
    }
  }
  if (must_be_pinned && !pinned->registered_) return nullptr;
  return pinned;
}

Pinned::~Pinned() {
  if (host_) ::munmap(host_, whole_pages(bytes_));
}

void Pinned::unregister(const Driver& driver) {
  if (std::exchange(registered_, false)) driver.cuMemHostUnregister(host_);
}

std::shared_ptr<Pinned> Staging::make(size_t bytes, bool must_be_pinned) {
  auto pinned = Pinned::make(driver_, bytes, must_be_pinned);
  std::erase_if(all_, [](const auto& one) { return one.expired(); });
  all_.push_back(pinned);
  return pinned;
}

void Staging::unregister_all() {
  for (const auto& one : all_) {
    if (const auto pinned = one.lock()) pinned->unregister(driver_);
  }
  all_.clear();
}

std::optional<Words> Staging::take_words() {
  if (!free_words_.empty()) {
    Words words = std::move(free_words_.back());
    free_words_.pop_back();
    std::memset(words.host(Words::progress), 0, line_bytes);
    return words;
  }
  if (!page_ || page_used_ + line_bytes > page_->bytes()) {
    page_ = make(page_bytes, true);
    page_used_ = 0;
    if (!page_) return std::nullopt;
  }
  const size_t offset = page_used_;
  page_used_ += line_bytes;
  return Words{page_, offset};
}

void Staging::give_words(Words words) { free_words_.push_back(std::move(words)); }

std::shared_ptr<Pinned> Staging::take(size_t bytes) {
  const auto found = std::find_if(free_.begin(), free_.end(),
                                  [&](const auto& buffer) { return buffer->bytes() == bytes; });
  if (found == free_.end()) return make(bytes, false);
  std::shared_ptr<Pinned> buffer = std::move(*found);
  free_.erase(found);
  return buffer;
}

void Staging::give(std::shared_ptr<Pinned> buffer) { free_.push_back(std::move(buffer)); }

void Staging::trim(size_t keep_bytes) {
  size_t kept = 0;
  std::erase_if(free_, [&](const std::shared_ptr<Pinned>& buffer) {
    kept += buffer->bytes();
    if (kept <= keep_bytes || buffer.use_count() > 1) return false;
    buffer->unregister(driver_);
    return true;
  });
}

// Where the next `bytes` would begin: never across the end of the buffer.
uint64_t StagingRing::start_of(size_t bytes) const {
  const uint64_t offset = head_ % ring_bytes;
  return offset + bytes > ring_bytes ? head_ + (ring_bytes - offset) : head_;
}

bool StagingRing::room(size_t bytes) const { return start_of(bytes) + bytes - tail_ <= ring_bytes; }

std::byte* StagingRing::allocate(size_t bytes, uint64_t position) {
  const uint64_t start = start_of(bytes);
  head_ = start + ((bytes + 63) & ~size_t{63});
  uses_.push_back({head_, position});
  return buffer_->host() + start % ring_bytes;
}

void StagingRing::complete(uint64_t position) {
  while (!uses_.empty() && uses_.front().position <= position) {
    tail_ = uses_.front().end;
    uses_.pop_front();
  }
  if (uses_.empty()) tail_ = head_;
}

}  // namespace outboard::worker
