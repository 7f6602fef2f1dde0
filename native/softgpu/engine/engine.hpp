// The border between the software GPU's driver API and its PTX engine.
// SPDX-License-Identifier: Apache-2.0
//
// The driver side (native/softgpu/driver) owns streams, memory and handles; the engine
// (native/softgpu/engine) owns PTX: parsing, linking, decoding and running kernels on the CPU.
// Nothing here knows of CUDA's handles. All addresses are host virtual addresses.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "textures.hpp"

namespace softgpu {

/// A half-open range of addresses, in bytes.
struct Range {
  uint64_t base = 0;
  uint64_t size = 0;
};

/// The addresses that kernels may touch (device memory, pinned host memory, module globals).
/// `add` and `remove` may be called from any thread at any time; a kernel that runs sees a
/// consistent snapshot that is at least as new as its launch. Look-ups take no lock.
class AddressSpace {
 public:
  AddressSpace();
  ~AddressSpace();
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  void add(Range range);     ///< Adjacent ranges are merged.
  void remove(Range range);  ///< May cut a range in two.
  bool contains(uint64_t address, uint64_t bytes) const;

  struct Impl;
  std::unique_ptr<Impl> impl;
};

/// Where a module's globals and constants live. The driver gives zeroed memory that it has already
/// added to the AddressSpace; returns 0 when there is none left.
struct GlobalAllocator {
  /// `managed`: memory that the program's processor may use.
  std::function<uint64_t(uint64_t bytes, uint64_t alignment, bool managed)> allocate;
  std::function<void(uint64_t address, uint64_t bytes)> release;
};

struct ParamInfo {
  uint32_t offset = 0;  ///< in bytes from the start of the parameter block
  uint32_t size = 0;    ///< in bytes
};

/// A texture or surface reference of a module. Kernels name it by its variable's address.
struct ReferenceInfo {
  std::string name;
  uint64_t address = 0;
  bool surface = false;
};

struct KernelInfo {
  std::string name;
  std::vector<ParamInfo> params;
  uint32_t param_bytes = 0;               ///< end of the last parameter
  uint32_t static_shared_bytes = 0;       ///< a launch adds its dynamic bytes
  uint32_t local_bytes = 0;               ///< per thread
  uint32_t const_bytes = 0;               ///< the module's user constants
  uint32_t registers = 0;                 ///< an estimate, capped at 255
  uint32_t max_threads = 1024;            ///< .maxntid / .reqntid or the device's limit
  int target_sm = 80;                     ///< of the PTX that was chosen, as 80 for sm_80
  std::vector<ReferenceInfo> references;  ///< that it names
};

struct GlobalInfo {
  std::string name;
  uint64_t address = 0;
  uint64_t bytes = 0;
  bool constant = false;
  bool managed = false;
};

/// One entry point, decoded on first use. Owned by its Module.
class Kernel;

/// One loaded (and linked) module. Entry points are parsed lazily, one at a time, after a fast
/// index pass, since some modules hold hundreds of kernels in 20 MB of text.
class Module {
 public:
  virtual ~Module() = default;
  /// All names of entry points, in the order of the text.
  virtual std::vector<std::string> kernel_names() const = 0;
  /// Decodes the entry point if need be. Null when there is no such entry (`error` empty) or when
  /// it holds a form that the engine does not know (`error` has the instruction's text and line).
  virtual const Kernel* kernel(std::string_view name, std::string* error) = 0;
  virtual const GlobalInfo* global(std::string_view name) const = 0;
  virtual std::vector<GlobalInfo> globals() const = 0;
  virtual const std::vector<ReferenceInfo>& references() const = 0;
};

/// Loads one or several PTX texts as one linked module (`.extern` symbols resolve across texts).
/// On failure returns null and appends to `log` what ptxas would: text, line, reason.
std::unique_ptr<Module> load_module(std::span<const std::string_view> texts,
                                    GlobalAllocator allocator, std::string* log);

const KernelInfo& kernel_info(const Kernel& kernel);

struct Launch {
  uint32_t grid[3] = {1, 1, 1};
  uint32_t block[3] = {1, 1, 1};
  uint32_t dynamic_shared_bytes = 0;
  uint64_t multiprocessors = 0;            ///< a bit for each that the blocks may run on; 0: all
  bool cooperative = false;                ///< grid-wide barriers: all blocks stay resident
  const TextureTable* textures = nullptr;  ///< what its names mean; null: nothing has a name
  const void* params = nullptr;  ///< `param_bytes` of the kernel's KernelInfo; copied by run()
};

/// Why a kernel ended. The values are the CUresult that the driver makes of it.
enum class Fault : int {
  none = 0,
  illegal_address = 700,
  launch_timeout = 702,
  assertion = 710,
  illegal_instruction = 715,
  misaligned_address = 716,
  invalid_address_space = 717,
  invalid_program_counter = 718,
  launch_failed = 719,  ///< trap
};

struct Outcome {
  Fault fault = Fault::none;
  std::string detail;  ///< one line for stderr: kernel, block, thread, address
};

struct EngineOptions {
  int threads = 0;  ///< 0: as many as the process may run on
  int compute_capability = 80;
  uint32_t sm_count = 8;  ///< what %nsmid says
  uint64_t malloc_heap_bytes = 8u << 20;
  double time_limit_s = 0;  ///< 0: none
};

/// Runs kernels. One per device. `run` is synchronous and called by one thread at a time; it
/// spreads blocks over a pool of threads that lives as long as the engine.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual Outcome run(const Kernel& kernel, const Launch& launch) = 0;
  /// Device printf goes here, a whole formatted text at a time, before run() returns.
  virtual void set_printf(std::function<void(std::string_view text)> sink) = 0;
  /// Takes effect before the next kernel. Units: bytes.
  virtual void set_malloc_heap(uint64_t bytes) = 0;
  /// Makes a running kernel end soon with Fault::launch_failed (used when a context is torn down).
  virtual void cancel() = 0;
};

std::unique_ptr<Engine> make_engine(const EngineOptions& options, AddressSpace& space);

}  // namespace softgpu
