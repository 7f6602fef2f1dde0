// The engine of a device: a pool of threads that run launches.
// SPDX-License-Identifier: Apache-2.0
#include "engine.hpp"

#include <sched.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <thread>

#include "device_heap.hpp"
#include "executor.hpp"
#include "printf.hpp"

namespace softgpu::simt {
namespace {

int available_threads() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return 1;
}

class PoolEngine final : public Engine {
 public:
  PoolEngine(const EngineOptions& options, AddressSpace& space)
      : options_(options), space_(space), heap_(space, options.malloc_heap_bytes) {
    threads_ = options.threads > 0 ? options.threads : available_threads();
    executors_.resize(static_cast<size_t>(threads_));
    for (auto& e : executors_) e = std::make_unique<Executor>();
  }
  ~PoolEngine() override;

  Outcome run(const Kernel& kernel, const Launch& launch) override;
  void set_printf(std::function<void(std::string_view)> sink) override {
    printf_.set(std::move(sink));
  }
  void set_malloc_heap(uint64_t bytes) override { heap_.resize(bytes); }
  void cancel() override { cancelled_.store(true); }

 private:
  Outcome check(const Kernel& kernel, const Launch& launch) const;
  void grid_workspace(LaunchState& state);
  void start_threads();
  void work(unsigned worker);

  EngineOptions options_;
  AddressSpace& space_;
  DeviceHeap heap_;
  PrintfSink printf_;
  int threads_ = 1;
  std::vector<std::unique_ptr<Executor>> executors_;
  std::atomic<bool> cancelled_{false};
  uint64_t workspace_ = 0;
  AlignedBytes workspace_bytes_;

  std::vector<std::thread> pool_;  ///< all but the caller's
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable finished_;
  LaunchState* job_ = nullptr;
  uint64_t generation_ = 0;
  unsigned workers_ = 0;  ///< that take part in the job, the caller included
  unsigned running_ = 0;
  bool quit_ = false;
};

PoolEngine::~PoolEngine() {
  {
    std::lock_guard lock(mutex_);
    quit_ = true;
  }
  wake_.notify_all();
  for (auto& t : pool_) t.join();
  if (workspace_) space_.remove({workspace_, 4096});
}

void PoolEngine::start_threads() {
  if (!pool_.empty() || threads_ == 1) return;
  for (int k = 1; k < threads_; ++k) {
    pool_.emplace_back([this, k] { work(static_cast<unsigned>(k)); });
  }
}

void PoolEngine::work(unsigned worker) {
  uint64_t seen = 0;
  while (true) {
    LaunchState* job;
    unsigned workers;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return quit_ || generation_ != seen; });
      if (quit_) return;
      seen = generation_;
      job = job_;
      workers = workers_;
      if (worker >= workers || !job) continue;
    }
    executors_[worker]->run(*job, space_, worker, workers);
    std::lock_guard lock(mutex_);
    if (--running_ == 0) finished_.notify_one();
  }
}

Outcome PoolEngine::check(const Kernel& kernel, const Launch& l) const {
  uint64_t threads = uint64_t{l.block[0]} * l.block[1] * l.block[2];
  uint64_t shared = uint64_t{kernel.program.shared_bytes} + l.dynamic_shared_bytes;
  if (threads == 0 || threads > 1024 || !l.grid[0] || !l.grid[1] || !l.grid[2] ||
      shared > (1u << 20)) {
    return {Fault::launch_failed, "kernel " + kernel.info.name + ": impossible launch dimensions"};
  }
  return {};
}

/// Cooperative groups find a barrier's word through %envreg1 and %envreg2: size, then the barrier.
void PoolEngine::grid_workspace(LaunchState& state) {
  if (!workspace_) {
    workspace_bytes_ = aligned_bytes(4096);
    workspace_ = reinterpret_cast<uint64_t>(workspace_bytes_.get());
    space_.add({workspace_, 4096});
  }
  std::memset(workspace_bytes_.get(), 0, 64);
  uint32_t size = 64;
  std::memcpy(workspace_bytes_.get(), &size, sizeof size);
  state.workspace = workspace_;
}

Outcome PoolEngine::run(const Kernel& kernel, const Launch& launch) {
  if (Outcome bad = check(kernel, launch); bad.fault != Fault::none) return bad;
  cancelled_.store(false);
  LaunchState state;
  state.kernel = &kernel;
  state.launch = launch;
  state.threads = launch.block[0] * launch.block[1] * launch.block[2];
  uint32_t lanes = kWarp;
  while (lanes < state.threads && lanes < kMaxLanes) lanes *= 2;
  state.program = &kernel.bound(lanes);
  state.params.resize((kernel.info.param_bytes + 7) / 8 + 1);
  if (launch.params) std::memcpy(state.params.data(), launch.params, kernel.info.param_bytes);
  state.shared_bytes = kernel.program.shared_bytes + launch.dynamic_shared_bytes;
  state.blocks = uint64_t{launch.grid[0]} * launch.grid[1] * launch.grid[2];
  state.sm_count = options_.sm_count;
  for (uint32_t sm = 0; sm < state.sm_count; ++sm) {
    if (launch.multiprocessors == 0 || (launch.multiprocessors >> sm & 1) != 0) {
      state.sms.push_back(sm);
    }
  }
  state.heap = &heap_;
  state.printf = &printf_;
  state.cancelled = &cancelled_;
  if (options_.time_limit_s > 0) {
    state.has_deadline = true;
    state.deadline = std::chrono::steady_clock::now() +
                     std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                         std::chrono::duration<double>(options_.time_limit_s));
  }
  if (launch.cooperative) grid_workspace(state);
  auto workers =
      static_cast<unsigned>(std::min<uint64_t>(static_cast<uint64_t>(threads_), state.blocks));
  if (launch.multiprocessors != 0) {
    workers = std::min(workers, static_cast<unsigned>(state.sms.size()));
  }
  if (workers > 1) {
    start_threads();
    std::lock_guard lock(mutex_);
    job_ = &state;
    workers_ = workers;
    running_ = workers - 1;
    ++generation_;
    wake_.notify_all();
  }
  executors_[0]->run(state, space_, 0, workers);
  if (workers > 1) {
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [&] { return running_ == 0; });
    job_ = nullptr;
  }
  return state.outcome;
}

}  // namespace

}  // namespace softgpu::simt

namespace softgpu {

std::unique_ptr<Engine> make_engine(const EngineOptions& options, AddressSpace& space) {
  return std::make_unique<simt::PoolEngine>(options, space);
}

}  // namespace softgpu
