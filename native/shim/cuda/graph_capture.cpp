// Capturing streams into graphs.
// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "generated/shim_api.hpp"
#include "shim/cuda/graphs.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

CUresult enter_info(CUstream value, Stream** stream) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  *stream = resolve(value, context);
  return *stream != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

// `into`: the program's own graph, or null.
CUresult begin(CUstream hStream, CUstreamCaptureMode mode, Graph* into,
               const std::vector<uint64_t>& after, std::span<const std::byte> edges) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (const CUresult result = check_begin(stream, mode); result != CUDA_SUCCESS) return result;
  Graph* graph = into != nullptr ? into : graphs.take();
  if (graph == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  if (into == nullptr) graph->context = stream->context;
  wire::command::CaptureBegin command;
  command.stream = stream->head.id();
  command.graph = graph->id();
  command.into = into != nullptr ? 1 : 0;
  command.dependencies = after;
  command.edges = edges;
  client::Answer<wire::command::CaptureBegin> answer;
  const CUresult result = call(context, command, &answer, stream);
  if (result == CUDA_SUCCESS) {
    begun(stream, mode, answer.reply.capture_id, graph, into != nullptr);
  } else if (into == nullptr) {
    forget(graph);
  }
  return result;
}

// What a query hands out stays the thread's until its next one.
struct Dependencies {
  std::vector<CUgraphNode> nodes;
  std::vector<CUgraphEdgeData> edges;
};

CUresult read_dependencies(Stream* stream, Graph* graph, Dependencies* out) {
  client::Answer<wire::command::CaptureDependencies> answer;
  const CUresult result =
      call(stream->context, wire::command::CaptureDependencies{.stream = stream->head.id()},
           &answer, stream);
  if (result != CUDA_SUCCESS) return result;
  out->nodes.clear();
  for (const uint64_t id : answer.reply.nodes) {
    Node* node = name_node(graph, id);
    if (node == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
    out->nodes.push_back(handle(node));
  }
  out->edges.assign(out->nodes.size(), CUgraphEdgeData{});
  const auto& edges = answer.reply.edges;
  if (edges.size() == out->edges.size() * sizeof(CUgraphEdgeData) && !edges.empty()) {
    std::memcpy(out->edges.data(), edges.data(), edges.size());
  }
  return CUDA_SUCCESS;
}

bool has_data(const std::vector<CUgraphEdgeData>& edges) {
  for (const CUgraphEdgeData& edge : edges) {
    if (edge.from_port != 0 || edge.to_port != 0 || edge.type != 0) return true;
  }
  return false;
}

CUresult capture_info(CUstream hStream, CUstreamCaptureStatus* status, cuuint64_t* id,
                      CUgraph* graph_out, const CUgraphNode** dependencies,
                      const CUgraphEdgeData** edges, size_t* count, bool may_lose_data) {
  static thread_local Dependencies* given = nullptr;  // the thread's for ever: programs may exit
  const CUresult result = shim::cuStreamGetCaptureInfo(hStream, status, id);
  if (result != CUDA_SUCCESS) return result;
  if (graph_out != nullptr) *graph_out = nullptr;
  if (dependencies != nullptr) *dependencies = nullptr;
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = 0;
  if (*status != CU_STREAM_CAPTURE_STATUS_ACTIVE) return CUDA_SUCCESS;
  Stream* stream = nullptr;
  if (const CUresult entered = enter_info(hStream, &stream); entered != CUDA_SUCCESS) {
    return entered;
  }
  Graph* graph = captured_graph(stream);
  if (graph == nullptr) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (graph_out != nullptr) *graph_out = handle(graph);
  if (dependencies == nullptr && edges == nullptr && count == nullptr) return CUDA_SUCCESS;
  if (given == nullptr) given = new Dependencies;
  if (const CUresult read = read_dependencies(stream, graph, given); read != CUDA_SUCCESS) {
    return read;
  }
  if (!may_lose_data && edges == nullptr && has_data(given->edges)) return CUDA_ERROR_LOSSY_QUERY;
  if (dependencies != nullptr) *dependencies = given->nodes.data();
  if (edges != nullptr) *edges = given->edges.data();
  if (count != nullptr) *count = given->nodes.size();
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuStreamBeginCapture_v2(CUstream hStream, CUstreamCaptureMode mode) {
  return begin(hStream, mode, nullptr, {}, {});
}

CUresult cuStreamBeginCapture(CUstream hStream) {
  return shim::cuStreamBeginCapture_v2(hStream, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

CUresult cuStreamBeginCaptureToGraph(CUstream hStream, CUgraph hGraph,
                                     const CUgraphNode* dependencies,
                                     const CUgraphEdgeData* dependencyData, size_t numDependencies,
                                     CUstreamCaptureMode mode) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Graph* graph = find(hGraph);
  if (graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  std::vector<uint64_t> after;
  const CUresult result = node_ids(graph, dependencies, numDependencies, &after);
  if (result != CUDA_SUCCESS) return result;
  std::span<const std::byte> edges;
  if (dependencyData != nullptr) edges = std::as_bytes(std::span(dependencyData, numDependencies));
  return begin(hStream, mode, graph, after, edges);
}

CUresult cuStreamEndCapture(CUstream hStream, CUgraph* phGraph) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  bool ends = false, into = false;
  Graph* graph = captured_graph(stream, &into);
  // A program that captured into a graph of its own has that graph already.
  if (phGraph == nullptr && !into) return CUDA_ERROR_INVALID_VALUE;
  if (phGraph != nullptr) *phGraph = nullptr;
  const CUresult verdict = check_end(stream, &ends);
  if (!ends) return verdict;
  client::Answer<wire::command::CaptureEnd> answer;
  const CUresult result =
      call(context, wire::command::CaptureEnd{.stream = stream->head.id(), .graph = graph->id()},
           &answer, stream);
  ended(stream);
  if (verdict == CUDA_SUCCESS && result == CUDA_SUCCESS) {
    if (phGraph != nullptr) *phGraph = handle(graph);
    return CUDA_SUCCESS;
  }
  if (!into) {
    // The worker's capture had to end although its graph is of no use.
    if (result == CUDA_SUCCESS) {
      send(context, wire::command::GraphDestroy{.graph = graph->head.id()});
    }
    forget(graph);
  }
  return verdict != CUDA_SUCCESS ? verdict : result;
}

CUresult cuStreamIsCapturing(CUstream hStream, CUstreamCaptureStatus* captureStatus) {
  Stream* stream = nullptr;
  if (const CUresult result = enter_info(hStream, &stream); result != CUDA_SUCCESS) return result;
  if (captureStatus == nullptr) return CUDA_ERROR_INVALID_VALUE;
  uint64_t id = 0;
  return capture_info(stream, captureStatus, &id);
}

CUresult cuStreamGetCaptureInfo(CUstream hStream, CUstreamCaptureStatus* captureStatus_out,
                                cuuint64_t* id_out) {
  Stream* stream = nullptr;
  if (const CUresult result = enter_info(hStream, &stream); result != CUDA_SUCCESS) return result;
  if (captureStatus_out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  uint64_t id = 0;
  const CUresult result = capture_info(stream, captureStatus_out, &id);
  if (id_out != nullptr) *id_out = id;
  return result;
}

CUresult cuStreamGetCaptureInfo_v2(CUstream hStream, CUstreamCaptureStatus* captureStatus_out,
                                   cuuint64_t* id_out, CUgraph* graph_out,
                                   const CUgraphNode** dependencies_out,
                                   size_t* numDependencies_out) {
  return capture_info(hStream, captureStatus_out, id_out, graph_out, dependencies_out, nullptr,
                      numDependencies_out, true);
}

CUresult cuStreamGetCaptureInfo_v3(CUstream hStream, CUstreamCaptureStatus* captureStatus_out,
                                   cuuint64_t* id_out, CUgraph* graph_out,
                                   const CUgraphNode** dependencies_out,
                                   const CUgraphEdgeData** edgeData_out,
                                   size_t* numDependencies_out) {
  return capture_info(hStream, captureStatus_out, id_out, graph_out, dependencies_out, edgeData_out,
                      numDependencies_out, dependencies_out == nullptr);
}

CUresult cuStreamUpdateCaptureDependencies_v2(CUstream hStream, CUgraphNode* dependencies,
                                              const CUgraphEdgeData* dependencyData,
                                              size_t numDependencies, unsigned int flags) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES) return CUDA_ERROR_INVALID_VALUE;
  const Graph* graph = captured_graph(stream);
  if (graph == nullptr) return CUDA_ERROR_ILLEGAL_STATE;
  std::vector<uint64_t> ids;
  CUresult result = node_ids(graph, dependencies, numDependencies, &ids);
  if (result != CUDA_SUCCESS) return result;
  wire::command::CaptureSetDependencies command;
  command.stream = stream->head.id();
  command.flags = flags;
  command.dependencies = ids;
  if (dependencyData != nullptr) {
    command.edges = std::as_bytes(std::span(dependencyData, numDependencies));
  }
  client::Answer<wire::command::CaptureSetDependencies> answer;
  result = call(context, command, &answer, stream);
  if (result == CUDA_SUCCESS) rearranged(stream);
  return result;
}

CUresult cuStreamUpdateCaptureDependencies(CUstream hStream, CUgraphNode* dependencies,
                                           size_t numDependencies, unsigned int flags) {
  return shim::cuStreamUpdateCaptureDependencies_v2(hStream, dependencies, nullptr, numDependencies,
                                                    flags);
}

}  // namespace outboard::shim
