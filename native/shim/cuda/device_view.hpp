// Host memory as devices see it: copies at the server of what kernels reach, kept alike.
// SPDX-License-Identifier: Apache-2.0
//
// Pinned memory has one address for the program and for devices; memory that the program registers
// has another one for devices, its alias. When a command first names such an address, the server
// gets memory there. From then on what the program changed is sent before each command that reaches
// the memory and before each wait, and what the device changed comes back when the program has
// waited for the command, which is when CUDA lets it look. Small memory whose address the program
// copies to a device is named by every kernel from then on: any may find it there. So is managed
// memory, whose structures lead from one to the next. A device that
// finds another address by itself, in other memory, faults unless a command had named it before.
#pragma once

#include <cuda.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "client/windows.hpp"
#include "shim/cuda/objects.hpp"

namespace outboard::shim {

struct Range;

/// Where all addresses lie that devices could know host memory by; empty until there is one. Other
/// threads launch while the first is made.
struct VisibleWindow {
  std::atomic<uint64_t> base{0};
  std::atomic<uint64_t> bytes{0};  ///< written first

  bool empty() const { return base.load(std::memory_order_acquire) == 0; }
  bool contains(uint64_t address) const {
    const uint64_t begin = base.load(std::memory_order_acquire);
    return begin != 0 && address - begin < bytes.load(std::memory_order_relaxed);
  }
  void open(const client::Window& window) {
    bytes.store(window.bytes, std::memory_order_relaxed);
    base.store(window.base, std::memory_order_release);
  }
};
extern VisibleWindow visible_window;
/// Views that commands on their way may change.
extern std::atomic<uint32_t> views_in_use;
/// Words within structures were taken for leftovers, not for addresses (docs/adr/0011).
extern std::atomic<bool> leftovers_seen;
/// Device memory holds addresses of the program's memory.
extern std::atomic<bool> addresses_stored;

/// Memory of the program's that devices can be given the address of: page-aligned, filled with
/// zeros; null: none to be had.
void* make_visible_memory(size_t bytes);
/// A place for such memory, with nothing there yet.
bool reserve_visible(size_t bytes, client::Window* place);
/// From now on what commands name is looked at.
void open_visible_window();
void free_visible_memory(void* memory, size_t bytes);
/// The address of registered memory for devices, made if need be; 0: none to be had.
uint64_t alias_of(uint64_t registered);
/// Where the program's own bytes are that `address` means, if it means host memory.
bool find_host(uint64_t* address);

/// What one command reaches of host memory. Each `add` comes before the command, sent() after it.
class Reach {
 public:
  /// `in_graph`: the command will be part of a graph, as all of a captured stream are.
  explicit Reach(Stream* stream, bool in_graph = false) : stream_(stream), in_graph_(in_graph) {}

  /// Makes the memory at `address` alike at the server; any other address is none of its business.
  CUresult add(uint64_t address) {
    return visible_window.contains(address) ? add_visible(address, false) : CUDA_SUCCESS;
  }
  /// The same for what is known to be host memory, wherever it lies.
  CUresult add_host(uint64_t address) { return add_visible(address, false); }
  /// What a kernel's parameters name; `packed` has each at its offset.
  CUresult add_parameters(const Function* function, void** parameters);
  CUresult add_packed(const Function* function, const std::byte* packed);
  /// What the captured commands of the process reach: a graph may hold them.
  CUresult add_captured();
  /// What a kernel may find in device memory.
  CUresult add_stored() {
    return addresses_stored.load(std::memory_order_relaxed) ? add_all_stored() : CUDA_SUCCESS;
  }
  void sent() {
    if (!views_.empty()) note_sent();
  }

 private:
  CUresult add_words(const std::byte* parameter, size_t bytes);
  /// `is_guess`: it may be no address at all.
  CUresult add_visible(uint64_t address, bool is_guess);
  CUresult add_view(uint64_t base);
  CUresult add_all_stored();
  void note_sent();

  Stream* stream_;
  bool in_graph_;
  std::vector<uint64_t> views_;
};

/// The program has waited for something: what devices changed in its memory comes back.
CUresult fetch_views_slow();
inline CUresult fetch_views() {
  return views_in_use.load(std::memory_order_relaxed) == 0 ? CUDA_SUCCESS : fetch_views_slow();
}
/// The program may have changed memory that running commands reach: before it waits for them, as
/// one may be polling a flag, and after a host function, which the device waits for.
CUresult refresh_views_slow();
inline CUresult refresh_views() {
  return views_in_use.load(std::memory_order_relaxed) == 0 ? CUDA_SUCCESS : refresh_views_slow();
}

/// A copy will read or write these bytes of the program's: what commands on their way change of
/// them comes first.
CUresult settle_views_slow(const void* memory, size_t bytes);
inline CUresult settle_views(const void* memory, size_t bytes) {
  return views_in_use.load(std::memory_order_relaxed) == 0 ? CUDA_SUCCESS
                                                           : settle_views_slow(memory, bytes);
}

/// Looks for addresses of small memory among bytes that go to a device of `server`.
void note_stored_slow(const client::Server* server, uint64_t to, const void* from, size_t bytes);
inline void note_stored(const client::Server* server, uint64_t to, const void* from, size_t bytes) {
  // NCCL's structure of a communicator has some 30 KiB; what is larger is data.
  constexpr size_t most_bytes = 256 << 10;
  if (!visible_window.empty() && bytes <= most_bytes) note_stored_slow(server, to, from, bytes);
}

/// Opens the view of memory that has a content at the server, which comes here.
CUresult open_view_of(const Range& range);
/// Whether a graph's commands find these bytes of host memory at the server, by their address: it
/// has them as its own, or, of managed memory, in a view that each launch of a graph keeps alike.
CUresult find_for_graph(Context* context, uint64_t address, size_t bytes, bool* there);
/// Any kernel on any device may find its way to this memory.
void note_reached_by_all(uint64_t base);

/// The memory that devices know by `base` goes; nothing uses it any more.
void end_views(uint64_t base);
/// The context's views went with it.
void forget_views(const Context* context);

}  // namespace outboard::shim
