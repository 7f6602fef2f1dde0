// Stream capture: operations that become nodes of a graph instead of being done.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "graph.hpp"
#include "stream.hpp"

namespace softgpu {

/// Guards captures and graphs. Neither is used where speed matters.
std::recursive_mutex& capture_mutex();

class Capture {
 public:
  uint64_t id = 0;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  pid_t thread = 0;  ///< that began it
  bool invalidated = false;
  std::shared_ptr<Graph> graph;
  bool to_graph = false;  ///< cuStreamBeginCaptureToGraph: the graph is the program's
  Stream* origin = nullptr;
  std::vector<std::weak_ptr<Stream>> streams;  ///< all that take part, the origin first
};

/// Appends a node to what the stream captures.
CUresult capture_operation(Stream& stream, NodeContent content);
/// Whether an operation on this legacy stream would wait for a capturing stream (then the capture
/// is spoilt), which is an error.
CUresult refuse_legacy(const Stream& legacy);
/// Marks the stream's capture as spoilt; returns `error`.
CUresult spoil_capture(Stream& stream, CUresult error);
/// Joins the stream into the capture that the event was recorded in, or does nothing.
/// `*captured` tells which.
CUresult capture_wait(Stream& stream, struct Event& event, bool* captured);
CUresult capture_record(Stream& stream, Event& event);

}  // namespace softgpu
