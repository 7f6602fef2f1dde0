// Capturing streams into graphs, and running graphs.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/log.hpp"
#include "generated/shim_api.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

constexpr unsigned long long instantiate_flags = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH |
                                                 CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
                                                 CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;

CUresult enter_info(CUstream value, Stream** stream) {
  Context* context = nullptr;
  if (const CUresult result = enter_local(&context); result != CUDA_SUCCESS) return result;
  *stream = resolve(value, context);
  return *stream != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult instantiate(CUgraphExec* out, CUgraph value, unsigned long long flags) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  Graph* graph = find(value);
  if (out == nullptr || graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if ((flags & ~instantiate_flags) != 0) {
    return flags == CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH ? CUDA_ERROR_NOT_SUPPORTED
                                                              : CUDA_ERROR_INVALID_VALUE;
  }
  GraphExec* executable = graph_execs.take();
  if (executable == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  executable->context = context;
  executable->flags = flags;
  client::Answer<wire::command::GraphInstantiate> answer;
  const CUresult result =
      call(context,
           wire::command::GraphInstantiate{
               .graph = graph->head.id(), .executable = executable->head.id(), .flags = flags},
           &answer);
  if (result != CUDA_SUCCESS) {
    graph_execs.give(executable);
    return result;
  }
  *out = handle(executable);
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuStreamBeginCapture_v2(CUstream hStream, CUstreamCaptureMode mode) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (const CUresult result = check_begin(stream, mode); result != CUDA_SUCCESS) return result;
  client::Answer<wire::command::CaptureBegin> answer;
  const CUresult result =
      call(context, wire::command::CaptureBegin{.stream = stream->head.id()}, &answer, stream);
  if (result == CUDA_SUCCESS) begun(stream, mode, answer.reply.capture_id);
  return result;
}

CUresult cuStreamBeginCapture(CUstream hStream) {
  return shim::cuStreamBeginCapture_v2(hStream, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

CUresult cuStreamEndCapture(CUstream hStream, CUgraph* phGraph) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  if (phGraph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *phGraph = nullptr;
  bool ends = false;
  const CUresult verdict = check_end(stream, &ends);
  if (!ends) return verdict;
  Graph* graph = graphs.take();
  if (graph == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  graph->context = context;
  client::Answer<wire::command::CaptureEnd> answer;
  const CUresult result = call(
      context, wire::command::CaptureEnd{.stream = stream->head.id(), .graph = graph->head.id()},
      &answer, stream);
  ended(stream);
  if (verdict != CUDA_SUCCESS || result != CUDA_SUCCESS) {
    // The worker's capture had to end although its graph is of no use.
    if (result == CUDA_SUCCESS) {
      send(context, wire::command::GraphDestroy{.graph = graph->head.id()});
    }
    graphs.give(graph);
    return verdict != CUDA_SUCCESS ? verdict : result;
  }
  graph->nodes = answer.reply.nodes;
  *phGraph = handle(graph);
  return CUDA_SUCCESS;
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
  const CUresult result = shim::cuStreamGetCaptureInfo(hStream, captureStatus_out, id_out);
  if (result != CUDA_SUCCESS) return result;
  if (graph_out != nullptr) *graph_out = nullptr;
  if (dependencies_out != nullptr) *dependencies_out = nullptr;
  if (numDependencies_out != nullptr) *numDependencies_out = 0;
  // The graph that is being built, and its nodes, are known to the worker alone.
  if (*captureStatus_out == CU_STREAM_CAPTURE_STATUS_ACTIVE &&
      (graph_out != nullptr || dependencies_out != nullptr)) {
    static const char said[] = "capture graph";
    say_once(said,
             "the program asks for the graph of a capture under way, which is not supported; it "
             "gets CUDA_ERROR_NOT_SUPPORTED");
    return CUDA_ERROR_NOT_SUPPORTED;
  }
  return CUDA_SUCCESS;
}

CUresult cuStreamGetCaptureInfo_v3(CUstream hStream, CUstreamCaptureStatus* captureStatus_out,
                                   cuuint64_t* id_out, CUgraph* graph_out,
                                   const CUgraphNode** dependencies_out,
                                   const CUgraphEdgeData** edgeData_out,
                                   size_t* numDependencies_out) {
  if (edgeData_out != nullptr) *edgeData_out = nullptr;
  return shim::cuStreamGetCaptureInfo_v2(hStream, captureStatus_out, id_out, graph_out,
                                         dependencies_out, numDependencies_out);
}

CUresult cuGraphCreate(CUgraph* phGraph, unsigned int flags) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  if (phGraph == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
  Graph* graph = graphs.take();
  if (graph == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  graph->context = context;
  const CUresult result = send(context, wire::command::GraphCreate{.graph = graph->head.id()});
  if (result != CUDA_SUCCESS) {
    graphs.give(graph);
    return result;
  }
  *phGraph = handle(graph);
  return CUDA_SUCCESS;
}

CUresult cuGraphDestroy(CUgraph hGraph) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  Graph* graph = find(hGraph);
  if (graph == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result =
      send(graph->context, wire::command::GraphDestroy{.graph = graph->head.id()});
  graphs.give(graph);
  return result;
}

CUresult cuGraphGetNodes(CUgraph hGraph, CUgraphNode* nodes, size_t* numNodes) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  const Graph* graph = find(hGraph);
  if (graph == nullptr || numNodes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (nodes != nullptr && graph->nodes != 0) return CUDA_ERROR_NOT_SUPPORTED;
  client::Answer<wire::command::GraphNodeCount> answer;
  const CUresult result =
      call(graph->context, wire::command::GraphNodeCount{.graph = graph->head.id()}, &answer);
  if (result == CUDA_SUCCESS) *numNodes = answer.reply.nodes;
  return result;
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* phGraphExec, CUgraph hGraph,
                                     unsigned long long flags) {
  return instantiate(phGraphExec, hGraph, flags);
}

CUresult cuGraphInstantiate_v2(CUgraphExec* phGraphExec, CUgraph hGraph, CUgraphNode* phErrorNode,
                               char* logBuffer, size_t bufferSize) {
  if (phErrorNode != nullptr) *phErrorNode = nullptr;
  if (logBuffer != nullptr && bufferSize != 0) *logBuffer = 0;
  return instantiate(phGraphExec, hGraph, 0);
}

CUresult cuGraphInstantiateWithParams(CUgraphExec* phGraphExec, CUgraph hGraph,
                                      CUDA_GRAPH_INSTANTIATE_PARAMS* instantiateParams) {
  if (instantiateParams == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result = instantiate(phGraphExec, hGraph, instantiateParams->flags);
  instantiateParams->hErrNode_out = nullptr;
  instantiateParams->result_out =
      result == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS : CUDA_GRAPH_INSTANTIATE_ERROR;
  if (result == CUDA_SUCCESS &&
      (instantiateParams->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) != 0) {
    return shim::cuGraphUpload(*phGraphExec, instantiateParams->hUploadStream);
  }
  return result;
}

CUresult cuGraphExecDestroy(CUgraphExec hGraphExec) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  GraphExec* executable = find(hGraphExec);
  if (executable == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result =
      send(executable->context,
           wire::command::GraphExecutableDestroy{.executable = executable->head.id()});
  graph_execs.give(executable);
  return result;
}

CUresult cuGraphLaunch(CUgraphExec hGraphExec, CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  const GraphExec* executable = find(hGraphExec);
  if (executable == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  Reach reach(stream);
  if (const CUresult result = reach.add_captured(); result != CUDA_SUCCESS) return result;
  const CUresult result = send(
      stream,
      wire::command::GraphLaunch{.stream = stream->head.id(), .executable = executable->head.id()});
  reach.sent();
  return result;
}

CUresult cuGraphUpload(CUgraphExec hGraphExec, CUstream hStream) {
  Context* context = nullptr;
  Stream* stream = nullptr;
  if (const CUresult result = enter(hStream, &context, &stream); result != CUDA_SUCCESS)
    return result;
  const GraphExec* executable = find(hGraphExec);
  if (executable == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (const CUresult result = note_work(stream); result != CUDA_SUCCESS) return result;
  return send(stream, wire::command::GraphUpload{.stream = stream->head.id(),
                                                 .executable = executable->head.id()});
}

}  // namespace outboard::shim
