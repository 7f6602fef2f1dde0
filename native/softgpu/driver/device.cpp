// Devices: how they come into being, what they count, how kernels run on them.
// SPDX-License-Identifier: Apache-2.0
#include "device.hpp"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "activity.hpp"
#include "config.hpp"
#include "identity.hpp"
#include "printf_text.hpp"
#include "texture.hpp"

namespace softgpu {
namespace {

std::atomic<int> state{0};  // 0 before cuInit, 1 after, 2 in a forked child

CUuuid uuid_of(int ordinal) {
  Identity id = identity(ordinal);
  CUuuid uuid;
  std::memcpy(uuid.bytes, id.uuid, sizeof uuid.bytes);
  return uuid;
}

}  // namespace

Device::Device(int index)
    : ordinal(index),
      uuid(uuid_of(index)),
      pci_bus(identity(index).pci_bus),
      heap(
          [this](uint64_t base, uint64_t bytes) {
            if (!charge(bytes)) return false;
            publish({base, bytes});
            return true;
          },
          [this](uint64_t base, uint64_t bytes) {
            withdraw({base, bytes});
            // Nothing of what was freed may be read by who gets it next.
            madvise(reinterpret_cast<void*>(base), bytes,
                    heap.file() >= 0 ? MADV_REMOVE : MADV_DONTNEED);
            refund(bytes);
          }),
      total_(config().memory_bytes) {
  viewers_.push_back(this);
}

bool Device::start() {
  // More address space than memory, so that fragmentation is not what runs out first.
  if (!heap.reserve(std::max<uint64_t>(total_ * 4, 64ull << 30)) && !heap.reserve(total_ * 2) &&
      !heap.reserve(total_)) {
    return false;
  }
  EngineOptions options;
  options.threads = config().threads;
  options.compute_capability = config().compute_capability;
  options.sm_count = kSmCount;
  options.time_limit_s = config().time_limit_s;
  engine = make_engine(options, space);
  if (!engine) return false;
  engine->set_printf([](std::string_view text) { PrintfText::append(text); });
  return true;
}

bool Device::charge(uint64_t bytes) {
  uint64_t used = used_.load();
  do {
    if (bytes > total_ - used) return false;
  } while (!used_.compare_exchange_weak(used, used + bytes));
  return true;
}

void Device::refund(uint64_t bytes) { used_.fetch_sub(bytes); }

void Device::publish(Range range) {
  std::lock_guard lock(ranges_mutex_);
  published_.push_back(range);
  for (Device* viewer : viewers_) viewer->space.add(range);
}

void Device::withdraw(Range range) {
  std::lock_guard lock(ranges_mutex_);
  uint64_t end = range.base + range.size;
  std::vector<Range> kept;
  for (Range r : published_) {
    uint64_t r_end = r.base + r.size;
    if (r_end <= range.base || r.base >= end) {
      kept.push_back(r);
      continue;
    }
    if (r.base < range.base) kept.push_back({r.base, range.base - r.base});
    if (r_end > end) kept.push_back({end, r_end - end});
  }
  published_ = std::move(kept);
  for (Device* viewer : viewers_) viewer->space.remove(range);
}

void Device::add_viewer(Device* viewer) {
  std::lock_guard lock(ranges_mutex_);
  viewers_.push_back(viewer);
  for (Range r : published_) viewer->space.add(r);
}

void Device::remove_viewer(Device* viewer) {
  std::lock_guard lock(ranges_mutex_);
  auto found = std::find(viewers_.begin(), viewers_.end(), viewer);
  if (found == viewers_.end()) return;
  viewers_.erase(found);
  // Another context of that device may still look on.
  if (std::find(viewers_.begin(), viewers_.end(), viewer) != viewers_.end()) return;
  for (Range r : published_) viewer->space.remove(r);
}

bool Device::has_viewer(Device* viewer) {
  std::lock_guard lock(ranges_mutex_);
  return std::find(viewers_.begin(), viewers_.end(), viewer) != viewers_.end();
}

Outcome Device::run(const Kernel& kernel, Launch launch, const BoundReferences& references) {
  std::lock_guard lock(run_mutex_);
  Activity::Scope active;
  for (const auto& [name, view] : references) texture_table().set(name, view);
  launch.textures = &texture_table();
  Outcome outcome = engine->run(kernel, launch);
  for (const auto& [name, view] : references) texture_table().remove(name);
  return outcome;
}

CUresult Driver::start() {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  if (state.load() == 1) return CUDA_SUCCESS;
  if (state.load() == 2) return CUDA_ERROR_NOT_INITIALIZED;
  Driver& driver = get();
  if (driver.devices.empty()) {
    for (int i = 0; i < config().devices; ++i) {
      auto device = std::make_unique<Device>(i);
      if (!device->start()) {
        std::fprintf(stderr,
                     "softgpu: no address space for a device of %llu MiB (see `ulimit -v`); set "
                     "SOFTGPU_MEMORY_MIB lower\n",
                     static_cast<unsigned long long>(config().memory_bytes >> 20));
        driver.devices.clear();
        return CUDA_ERROR_OUT_OF_MEMORY;
      }
      driver.devices.push_back(std::move(device));
    }
  }
  if (driver.devices.empty()) return CUDA_ERROR_NO_DEVICE;
  // Threads do not survive a fork: the child has a driver that cannot work, and says so.
  pthread_atfork(nullptr, nullptr, [] { state.store(2); });
  state.store(1);
  return CUDA_SUCCESS;
}

bool Driver::initialised() { return state.load(std::memory_order_acquire) == 1; }
bool Driver::forked() { return state.load(std::memory_order_acquire) == 2; }

Driver& Driver::get() {
  static Driver& driver = *new Driver;
  return driver;
}

}  // namespace softgpu
