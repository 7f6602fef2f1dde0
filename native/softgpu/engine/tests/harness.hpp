// A device for tests: memory, modules from text or file, launches with typed arguments.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "engine.hpp"

namespace softgpu::test {

struct Shape {
  uint32_t x = 1, y = 1, z = 1;
};

class TestDevice {
 public:
  explicit TestDevice(EngineOptions options = {}) : engine_(make_engine(options, space_)) {
    engine_->set_printf([this](std::string_view text) { printed += text; });
  }
  ~TestDevice() {
    module_.reset();
    for (void* p : memory_) std::free(p);
  }

  /// Zeroed memory that kernels may touch.
  template <class T>
  T* alloc(size_t count) {
    return reinterpret_cast<T*>(raw(count * sizeof(T)));
  }
  template <class T>
  T* upload(const std::vector<T>& values) {
    T* p = alloc<T>(values.size());
    std::memcpy(p, values.data(), values.size() * sizeof(T));
    return p;
  }

  bool load(const std::vector<std::string>& texts) {
    std::vector<std::string_view> views(texts.begin(), texts.end());
    log.clear();
    GlobalAllocator allocator{
        [this](uint64_t bytes, uint64_t, bool) { return raw(bytes); },
        [this](uint64_t address, uint64_t bytes) { space_.remove({address, bytes}); }};
    module_ = load_module(views, allocator, &log);
    return module_ != nullptr;
  }
  bool load_file(const std::string& path) {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return file && load({text.str()});
  }

  const Kernel* kernel(const std::string& name) {
    return module_ ? module_->kernel(name, &log) : nullptr;
  }

  template <class... Args>
  Outcome run(const std::string& name, Shape grid, Shape block, Args... args) {
    const Kernel* k = kernel(name);
    if (!k) return {Fault::illegal_instruction, "no kernel: " + log};
    const KernelInfo& info = kernel_info(*k);
    std::vector<uint64_t> params(info.param_bytes / 8 + 1);
    if (info.params.size() != sizeof...(args))
      return {Fault::illegal_instruction, "wrong arguments"};
    size_t n = 0;
    auto put = [&](const void* p, size_t bytes) {
      const ParamInfo& where = info.params[n++];
      std::memcpy(reinterpret_cast<char*>(params.data()) + where.offset, p,
                  std::min<size_t>(bytes, where.size));
    };
    (put(&args, sizeof args), ...);
    Launch launch;
    launch.grid[0] = grid.x, launch.grid[1] = grid.y, launch.grid[2] = grid.z;
    launch.block[0] = block.x, launch.block[1] = block.y, launch.block[2] = block.z;
    launch.dynamic_shared_bytes = dynamic_shared;
    launch.cooperative = cooperative;
    launch.params = params.data();
    return engine_->run(*k, launch);
  }

  Module* module() { return module_.get(); }
  Engine* engine() { return engine_.get(); }
  AddressSpace& space() { return space_; }

  std::string printed;
  std::string log;
  uint32_t dynamic_shared = 0;
  bool cooperative = false;

 private:
  uint64_t raw(uint64_t bytes) {
    uint64_t size = (bytes + 255) / 256 * 256;
    void* p = std::aligned_alloc(256, std::max<uint64_t>(size, 256));
    std::memset(p, 0, std::max<uint64_t>(size, 256));
    memory_.push_back(p);
    space_.add({reinterpret_cast<uint64_t>(p), std::max<uint64_t>(bytes, 1)});
    return reinterpret_cast<uint64_t>(p);
  }

  AddressSpace space_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Module> module_;
  std::vector<void*> memory_;
};

#define CHECK_RUN(outcome)                                                \
  do {                                                                    \
    softgpu::Outcome result_ = (outcome);                                 \
    CHECK_MESSAGE(result_.fault == softgpu::Fault::none, result_.detail); \
  } while (false)

}  // namespace softgpu::test
