// Host memory that graphs copy from and to, and what a launch does about it.
// SPDX-License-Identifier: Apache-2.0
//
// A captured copy between host and device is done at every launch, with the host memory's content
// then. Where the memory is shared with the server, its graph just copies. Else, in the server's
// graph it is a copy on the device, whose other end is memory that stands for the program's: a
// shadow. Before a launch the client copies what the graph reads into the shadows, in stream order,
// and after it copies what the graph wrote back. Where a host function of the graph comes between,
// that function's call does it: what was written before the function is brought to the program
// before it runs, what it may have written is sent before the graph goes on.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "shim/cuda/volume.hpp"

namespace outboard::shim {

struct Context;
struct Graph;
struct Stream;

/// Device memory of ours, freed once all work that may use it is done.
struct Shadow {
  Shadow(Context* owner, uint64_t place, uint64_t size)
      : context(owner), address(place), bytes(size) {}
  ~Shadow();
  Shadow(const Shadow&) = delete;
  Shadow& operator=(const Shadow&) = delete;
  Context* context;
  uint64_t address;
  uint64_t bytes;
};

/// One copy: rows of host memory, which lie in the shadow without gaps.
struct HostCopy {
  std::shared_ptr<Shadow> shadow;
  CUDA_MEMCPY3D params{};  ///< as the program gave them
  bool to_device = false;
  std::byte* host = nullptr;  ///< the first byte copied
  size_t pitch = 0, slice = 0;

  bool dense() const;
  CUresult send(Stream* stream) const;
  CUresult fetch_later(Stream* stream) const;
  CUresult fetch_now(Stream* stream) const;
};

/// Gives the host side of a copy a shadow: `params` becomes a copy on the device. `*out` stays null
/// where both sides are the server's: on the device, or shared with the program.
CUresult replace_host(Context* context, CUDA_MEMCPY3D* params, std::shared_ptr<HostCopy>* out);
/// The copy whose shadow begins there; null: none.
std::shared_ptr<HostCopy> find_copy(uint64_t shadow);

/// Captures a copy of which one side is host memory.
CUresult capture_volume(Stream* stream, const VolumeEnd& to, const VolumeEnd& from,
                        const VolumeShape& shape);
CUresult capture_copy(Stream* stream, bool to_device, uint64_t device, const void* host,
                      size_t bytes);

/// What launches of an executable graph do on this side of the wire.
struct LaunchPlan {
  struct Copy {
    uint64_t node = 0;
    std::shared_ptr<HostCopy> copy;
    bool with_launch = true;  ///< before it or after it; else by functions
  };
  struct Function {
    uint64_t node = 0;
    uint64_t number = 0;
    std::vector<size_t> fetches, sends;  ///< places in `copies`
  };
  std::vector<Copy> copies;
  std::vector<Function> functions;

  CUresult before_launch(Stream* stream) const;
  CUresult after_launch(Stream* stream) const;
  void before_function(Stream* stream, size_t place) const;
  void after_function(Stream* stream, size_t place) const;
};

/// The plan of a graph as it is now; null where nothing of it is here.
CUresult make_plan(Graph* graph, std::shared_ptr<const LaunchPlan>* out);

}  // namespace outboard::shim
