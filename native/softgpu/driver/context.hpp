// Contexts, and the stack of contexts that each thread has.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "device.hpp"

namespace softgpu {

class LoadedModule;
class Stream;
struct GreenContext;
struct Record;

class Context : public std::enable_shared_from_this<Context> {
 public:
  /// Null when the device's memory has no room for it.
  static std::shared_ptr<Context> create(Device& device, unsigned flags, bool primary,
                                         unsigned api_version);
  ~Context();

  /// Ends its work, frees what it owns and makes its handle invalid.
  void destroy();

  /// The error that killed this context, or CUDA_SUCCESS.
  CUresult fault() const { return fault_.load(std::memory_order_acquire); }
  /// Kills the context; the first error stays.
  void fail(CUresult error);
  /// True once the context is going away: nothing may wait in it any longer.
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

  Stream& legacy() { return *legacy_; }
  std::shared_ptr<Stream> legacy_stream() { return legacy_; }
  std::shared_ptr<Stream> per_thread_stream();
  void add_stream(std::shared_ptr<Stream> stream);
  void remove_stream(const Stream* stream);
  /// Gives it its id and its name as a CUcontext; false where there is none left.
  bool add_green(const std::shared_ptr<GreenContext>& green);
  void remove_green(const GreenContext& green);
  /// What streams to come wait for.
  std::shared_ptr<Record> gate() const;
  void set_gate(std::shared_ptr<Record> record);
  /// The module's handles become invalid when the context ends.
  void add_module(const std::shared_ptr<LoadedModule>& module);
  void retire_streams();  ///< forgets destroyed ones that have nothing left to do
  /// Every stream that is not destroyed, the legacy one included; under a lock.
  template <class Visit>
  void each_stream(Visit&& visit) const {
    std::lock_guard lock(streams_mutex_);
    for (const auto& stream : streams_) visit(*stream);
  }
  std::vector<std::shared_ptr<Stream>> streams() const;

  /// Peer access of this context to another device's memory. False if it was so already.
  bool enable_peer(Device& peer);
  bool disable_peer(Device& peer);

  /// Waits for all work that was issued before the call.
  CUresult synchronize();

  const CUcontext handle;
  Device& device;
  const uint64_t id;
  std::atomic<unsigned> flags;
  const bool primary;
  std::atomic<int> usage{1};  ///< of cuCtxAttach and cuCtxDetach
  const unsigned api_version;
  std::atomic<uint64_t> limits[CU_LIMIT_MAX];
  std::atomic<int> cache_config{CU_FUNC_CACHE_PREFER_NONE};
  std::atomic<int> shared_config{CU_SHARED_MEM_CONFIG_DEFAULT_BANK_SIZE};

 private:
  Context(CUcontext handle, Device& device, unsigned flags, bool primary, unsigned api_version);

  std::atomic<CUresult> fault_{CUDA_SUCCESS};
  std::atomic<bool> cancelled_{false};
  mutable std::mutex streams_mutex_;
  std::vector<std::shared_ptr<Stream>> streams_;
  std::shared_ptr<Stream> legacy_;
  mutable std::mutex owned_mutex_;
  std::vector<std::weak_ptr<LoadedModule>> modules_;
  std::vector<Device*> peers_;
  std::vector<std::shared_ptr<GreenContext>> greens_;
  std::shared_ptr<Record> gate_;
};

/// The context that a handle names, or null.
std::shared_ptr<Context> find_context(CUcontext handle);

/// The calling thread's contexts. The last is current.
struct ContextStack {
  static CUcontext current();
  static void set_current(CUcontext context);  ///< replaces the top; null pops
  static void push(CUcontext context);
  static CUresult pop(CUcontext* out);
};

/// The primary context, made if need be (not retained). Null when memory ran out.
std::shared_ptr<Context> primary_context(Device& device);

}  // namespace softgpu
