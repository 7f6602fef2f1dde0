// Stream capture, and CUDA's rules about what may be done meanwhile.
// SPDX-License-Identifier: Apache-2.0
#include "capture.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "graph_memory.hpp"
#include "guard.hpp"
#include "submit.hpp"

namespace softgpu {
namespace {

std::atomic<uint64_t> next_capture_id{1};
std::atomic<int> active_captures{0};  // so that nobody takes the lock where there is none

std::vector<std::shared_ptr<Capture>>& captures() {
  static auto& list = *new std::vector<std::shared_ptr<Capture>>;
  return list;
}

thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

/// Ends the capture for every stream that takes part.
void detach(Capture& capture) {
  for (auto& weak : capture.streams) {
    auto stream = weak.lock();
    if (!stream || stream->capture.get() != &capture) continue;
    stream->capturing.store(false);
    stream->capture.reset();
    stream->capture_dependencies.clear();
  }
  std::erase_if(captures(), [&](const auto& c) { return c.get() == &capture; });
  active_captures.store(static_cast<int>(captures().size()));
}

void attach(Stream& stream, const std::shared_ptr<Capture>& capture,
            std::vector<GraphNode*> dependencies) {
  stream.capture = capture;
  stream.capture_dependencies = std::move(dependencies);
  capture->streams.push_back(stream.weak_from_this());
  stream.capturing.store(true);
}

/// True when `node` comes before one of `ends` (or is one).
bool reaches(GraphNode* node, const std::vector<GraphNode*>& ends) {
  std::vector<GraphNode*> open{node};
  std::vector<GraphNode*> seen;
  while (!open.empty()) {
    GraphNode* at = open.back();
    open.pop_back();
    if (std::find(ends.begin(), ends.end(), at) != ends.end()) return true;
    if (std::find(seen.begin(), seen.end(), at) != seen.end()) continue;
    seen.push_back(at);
    open.insert(open.end(), at->dependents.begin(), at->dependents.end());
  }
  return false;
}

CUresult begin(Context& context, CUstream handle, std::shared_ptr<Graph> graph,
               std::vector<GraphNode*> dependencies, CUstreamCaptureMode mode) {
  std::shared_ptr<Stream> stream;
  if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
  if (stream->legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::lock_guard lock(capture_mutex());
  if (stream->capturing.load()) return CUDA_ERROR_ILLEGAL_STATE;
  auto capture = std::make_shared<Capture>();
  capture->id = next_capture_id.fetch_add(1);
  capture->mode = mode;
  capture->thread = gettid();
  capture->to_graph = graph != nullptr;
  capture->graph = std::move(graph);
  capture->origin = stream.get();
  if (!capture->graph) {
    capture->graph = std::make_shared<Graph>();
    capture->graph->handle = graphs().insert(capture->graph);
  }
  captures().push_back(capture);
  active_captures.store(static_cast<int>(captures().size()));
  attach(*stream, capture, std::move(dependencies));
  return CUDA_SUCCESS;
}

CUresult end(Context& context, CUstream handle, CUgraph* out) {
  std::shared_ptr<Stream> stream;
  if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
  std::lock_guard lock(capture_mutex());
  if (!stream->capturing.load()) {
    return out == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_ILLEGAL_STATE;
  }
  std::shared_ptr<Capture> capture = stream->capture;
  if (out == nullptr && !capture->to_graph) return CUDA_ERROR_INVALID_VALUE;
  if (capture->origin != stream.get()) return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  if (capture->thread != gettid() && capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED) {
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  }
  if (out != nullptr) *out = nullptr;
  CUresult result = capture->invalidated ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
  if (result == CUDA_SUCCESS) {
    // Every stream that was forked off must have been joined again.
    for (auto& weak : capture->streams) {
      auto other = weak.lock();
      if (!other || other == stream || other->capture != capture) continue;
      for (GraphNode* node : other->capture_dependencies) {
        if (!reaches(node, stream->capture_dependencies)) {
          result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
        }
      }
    }
  }
  detach(*capture);
  if (result == CUDA_SUCCESS) {
    if (out != nullptr) *out = capture->graph->handle;
  } else if (!capture->to_graph) {
    graphs().erase(capture->graph->handle);
  }
  return result;
}

}  // namespace

std::recursive_mutex& capture_mutex() {
  static auto& mutex = *new std::recursive_mutex;
  return mutex;
}

CUresult spoil_capture(Stream& stream, CUresult error) {
  std::lock_guard lock(capture_mutex());
  if (stream.capture) stream.capture->invalidated = true;
  return error;
}

CUresult capture_operation(Stream& stream, NodeContent content) {
  std::lock_guard lock(capture_mutex());
  if (!stream.capture || stream.capture->invalidated) {
    return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  }
  GraphNode* node = stream.capture->graph->add(std::move(content), stream.capture_dependencies);
  stream.capture_dependencies = {node};
  return CUDA_SUCCESS;
}

CUresult capture_allocation(Stream& stream, MemoryPool& pool, size_t bytes, CUdeviceptr* out) {
  AllocContent content;
  if (CUresult r = graph_allocation(pool, bytes, &content); r != CUDA_SUCCESS) return r;
  *out = content.parameters.dptr;
  return capture_operation(stream, std::move(content));
}

CUresult refuse_legacy(const Stream& legacy) {
  if (active_captures.load() == 0) return CUDA_SUCCESS;
  std::lock_guard lock(capture_mutex());
  std::shared_ptr<Context> context = legacy.context.lock();
  CUresult result = CUDA_SUCCESS;
  for (auto& capture : captures()) {
    for (auto& weak : capture->streams) {
      auto stream = weak.lock();
      if (!stream || !stream->blocking() || stream->capture != capture) continue;
      if (stream->context.lock() != context || stream->green != legacy.green) continue;
      capture->invalidated = true;
      result = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
  }
  return result;
}

CUresult refuse_in_capture() {
  if (active_captures.load() == 0 || thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED) {
    return CUDA_SUCCESS;
  }
  std::lock_guard lock(capture_mutex());
  CUresult result = CUDA_SUCCESS;
  for (auto& capture : captures()) {
    bool mine = capture->thread == gettid();
    bool forbids = (thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
                    capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL) ||
                   (mine && capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED);
    if (!forbids) continue;
    capture->invalidated = true;
    result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  }
  return result;
}

CUresult capture_record(Stream& stream, Event& event) {
  std::lock_guard lock(capture_mutex());
  if (!stream.capture || stream.capture->invalidated) {
    return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  }
  event.capture = stream.capture;
  event.capture_nodes = stream.capture_dependencies;
  return CUDA_SUCCESS;
}

CUresult capture_wait(Stream& stream, Event& event, bool* captured) {
  *captured = false;
  std::lock_guard lock(capture_mutex());
  std::shared_ptr<Capture> of_event = event.capture.lock();
  bool over =
      of_event && std::find(captures().begin(), captures().end(), of_event) == captures().end();
  if (over || (!of_event && event.capture_nodes.empty())) of_event = nullptr;
  if (!stream.capturing.load() && !of_event) return CUDA_SUCCESS;
  *captured = true;
  if (!of_event) {  // the stream captures, the event lies outside
    if (over) return spoil_capture(stream, CUDA_ERROR_CAPTURED_EVENT);
    // An event that was never recorded has nothing to wait for.
    if (!event.latest()) return CUDA_SUCCESS;
    return spoil_capture(stream, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
  }
  if (of_event->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (!stream.capturing.load()) {
    if (stream.legacy) {
      of_event->invalidated = true;
      return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    attach(stream, of_event, event.capture_nodes);
    return CUDA_SUCCESS;
  }
  if (stream.capture != of_event) {
    stream.capture->invalidated = true;
    of_event->invalidated = true;
    return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  }
  for (GraphNode* node : event.capture_nodes) {
    auto& list = stream.capture_dependencies;
    if (std::find(list.begin(), list.end(), node) == list.end()) list.push_back(node);
  }
  return CUDA_SUCCESS;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode) {
  return with_context([&](Context& context) { return begin(context, stream, nullptr, {}, mode); });
}
extern "C" CUresult cuStreamBeginCapture(CUstream stream) {
  return cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

extern "C" CUresult cuStreamBeginCaptureToGraph(CUstream stream, CUgraph handle,
                                                const CUgraphNode* dependencies,
                                                const CUgraphEdgeData*, size_t count,
                                                CUstreamCaptureMode mode) {
  return with_context([&](Context& context) {
    std::lock_guard lock(capture_mutex());
    std::shared_ptr<Graph> graph = graphs().find(handle);
    if (!graph || (dependencies == nullptr && count > 0)) return CUDA_ERROR_INVALID_VALUE;
    std::vector<GraphNode*> nodes;
    for (size_t i = 0; i < count; ++i) {
      auto node = graph_nodes().find(dependencies[i]);
      if (!node || node->graph != graph.get()) return CUDA_ERROR_INVALID_VALUE;
      nodes.push_back(node.get());
    }
    return begin(context, stream, std::move(graph), std::move(nodes), mode);
  });
}

extern "C" CUresult cuStreamEndCapture(CUstream stream, CUgraph* out) {
  return with_context([&](Context& context) { return end(context, stream, out); });
}

extern "C" CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* out) {
  return with_context([&](Context& context) {
    std::shared_ptr<Stream> stream;
    if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = CU_STREAM_CAPTURE_STATUS_NONE;
    // Asking about the legacy stream while a blocking stream captures is an error, but harmless.
    if (!stream->capturing.load()) return CUDA_SUCCESS;
    std::lock_guard lock(capture_mutex());
    if (stream->capture) {
      *out = stream->capture->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                          : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    }
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuStreamGetCaptureInfo_v3(CUstream handle, CUstreamCaptureStatus* status,
                                              cuuint64_t* id, CUgraph* graph,
                                              const CUgraphNode** dependencies,
                                              const CUgraphEdgeData** edges, size_t* count) {
  return with_context([&](Context& context) {
    std::shared_ptr<Stream> stream;
    if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
    if (status == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    if (!stream->capturing.load()) return CUDA_SUCCESS;
    std::lock_guard lock(capture_mutex());
    if (!stream->capture) return CUDA_SUCCESS;
    const Capture& capture = *stream->capture;
    if (capture.invalidated) {
      *status = CU_STREAM_CAPTURE_STATUS_INVALIDATED;
      return CUDA_SUCCESS;
    }
    *status = CU_STREAM_CAPTURE_STATUS_ACTIVE;
    if (id != nullptr) *id = capture.id;
    if (graph != nullptr) *graph = capture.graph->handle;
    // What is handed out stays valid until this thread's next call.
    thread_local std::vector<CUgraphNode> handles;
    thread_local std::vector<CUgraphEdgeData> no_data;
    handles.clear();
    for (GraphNode* node : stream->capture_dependencies) handles.push_back(node->handle);
    no_data.assign(handles.size(), CUgraphEdgeData{});
    if (dependencies != nullptr) *dependencies = handles.data();
    if (edges != nullptr) *edges = no_data.data();
    if (count != nullptr) *count = handles.size();
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuStreamGetCaptureInfo_v2(CUstream stream, CUstreamCaptureStatus* status,
                                              cuuint64_t* id, CUgraph* graph,
                                              const CUgraphNode** dependencies, size_t* count) {
  return cuStreamGetCaptureInfo_v3(stream, status, id, graph, dependencies, nullptr, count);
}
extern "C" CUresult cuStreamGetCaptureInfo(CUstream stream, CUstreamCaptureStatus* status,
                                           cuuint64_t* id) {
  return cuStreamGetCaptureInfo_v3(stream, status, id, nullptr, nullptr, nullptr, nullptr);
}

extern "C" CUresult cuStreamUpdateCaptureDependencies_v2(CUstream handle, CUgraphNode* dependencies,
                                                         const CUgraphEdgeData*, size_t count,
                                                         unsigned int flags) {
  return with_context([&](Context& context) {
    std::shared_ptr<Stream> stream;
    if (CUresult r = stream_of(context, handle, &stream); r != CUDA_SUCCESS) return r;
    if (flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES || (dependencies == nullptr && count > 0)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    std::lock_guard lock(capture_mutex());
    if (!stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
    std::vector<GraphNode*> nodes;
    if (flags == CU_STREAM_ADD_CAPTURE_DEPENDENCIES) nodes = stream->capture_dependencies;
    for (size_t i = 0; i < count; ++i) {
      auto node = graph_nodes().find(dependencies[i]);
      if (!node || node->graph != stream->capture->graph.get()) return CUDA_ERROR_INVALID_VALUE;
      if (std::find(nodes.begin(), nodes.end(), node.get()) == nodes.end()) {
        nodes.push_back(node.get());
      }
    }
    stream->capture_dependencies = std::move(nodes);
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuStreamUpdateCaptureDependencies(CUstream stream, CUgraphNode* dependencies,
                                                      size_t count, unsigned int flags) {
  return cuStreamUpdateCaptureDependencies_v2(stream, dependencies, nullptr, count, flags);
}

extern "C" CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  if (mode == nullptr || *mode < CU_STREAM_CAPTURE_MODE_GLOBAL ||
      *mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  std::swap(*mode, thread_mode);
  return CUDA_SUCCESS;
}
