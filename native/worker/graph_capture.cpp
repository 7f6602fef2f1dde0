// Capturing streams into graphs.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "worker/graph_nodes.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

// The streams that joined a capture are out of it when its origin ends it, however it ends.
void leave_capture(Worker& worker, const std::shared_ptr<Capture>& capture) {
  worker.tables.contexts.each([&](const Context& context) {
    for (const auto& stream : context.streams) {
      if (stream->capture == capture) stream->capture.reset();
    }
  });
}

struct Position {
  CUgraph graph = nullptr;
  cuuint64_t id = 0;
  std::vector<CUgraphNode> nodes;
  std::vector<CUgraphEdgeData> edges;
};

// Where the stream's next node will come.
CUresult position_of(const Driver& driver, CUstream stream, Position* position) {
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  const CUgraphNode* nodes = nullptr;
  const CUgraphEdgeData* edges = nullptr;
  size_t count = 0;
  CUresult result = driver.cuStreamGetCaptureInfo_v3(stream, &status, &position->id,
                                                     &position->graph, &nodes, &edges, &count);
  if (result == CUDA_ERROR_NOT_SUPPORTED) {  // by name, before CUDA 12.3
    result = driver.cuStreamGetCaptureInfo_v2(stream, &status, &position->id, &position->graph,
                                              &nodes, &count);
  }
  if (result != CUDA_SUCCESS) return result;
  if (status != CU_STREAM_CAPTURE_STATUS_ACTIVE) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (nodes) position->nodes.assign(nodes, nodes + count);
  position->edges.assign(count, CUgraphEdgeData{});
  if (edges) position->edges.assign(edges, edges + count);
  return CUDA_SUCCESS;
}

// Puts an empty node that stands for something else at the stream's place in the graph.
CUresult add_stand_in(Worker& worker, Stream& stream, CUgraphNodeType type,
                      const CUgraphNodeParams& params) {
  if (!stream.capture || !stream.capture->graph) return CUDA_ERROR_ILLEGAL_STATE;
  const Driver& driver = worker.driver();
  Position position;
  CUresult result = position_of(driver, stream.handle, &position);
  if (result != CUDA_SUCCESS) return result;
  CUgraphNode handle = nullptr;
  result = driver.cuGraphAddEmptyNode(&handle, position.graph, position.nodes.data(),
                                      position.nodes.size());
  if (result != CUDA_SUCCESS) return result;
  result = driver.cuStreamUpdateCaptureDependencies(stream.handle, &handle, 1,
                                                    CU_STREAM_SET_CAPTURE_DEPENDENCIES);
  if (result != CUDA_SUCCESS) return result;
  Node& node = worker.graph_names.name(stream.capture->graph, handle);
  node.stands_for = type;
  node.memory = params;
  return CUDA_SUCCESS;
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::CaptureBegin& command,
                 wire::command::CaptureBegin::Reply& reply) {
  Stream& stream = worker.issuing();
  const Driver& driver = worker.driver();
  const bool into = command.into != 0;
  std::shared_ptr<Graph> graph = into ? worker.graph(command.graph) : std::make_shared<Graph>();
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  if (!into && !worker.accept_create(worker.tables.graphs.may_insert(command.graph))) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  std::vector<CUgraphNode> after;
  std::vector<CUgraphEdgeData> edges;
  if (const CUresult result =
          read_dependencies(worker, command.dependencies, command.edges, &after, &edges);
      result != CUDA_SUCCESS) {
    return result;
  }
  worker.completion.mark(stream);  // not possible while it captures
  // The client keeps the modes' rules; here nothing of another thread may be refused for them.
  CUresult result =
      into ? driver.cuStreamBeginCaptureToGraph(stream.handle, graph->handle, after.data(),
                                                edges.empty() ? nullptr : edges.data(),
                                                after.size(), CU_STREAM_CAPTURE_MODE_RELAXED)
           : driver.cuStreamBeginCapture_v2(stream.handle, CU_STREAM_CAPTURE_MODE_RELAXED);
  if (result != CUDA_SUCCESS) return result;
  Position position;
  position_of(driver, stream.handle, &position);
  reply.capture_id = position.id;
  if (!into) {
    graph->id = command.graph;
    graph->handle = position.graph;
    graph->context = worker.tables.contexts.share(stream.context->id);
    worker.tables.graphs.insert(command.graph, graph);
  }
  stream.capture = std::make_shared<Capture>(Capture{&stream, std::move(graph), into});
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::CaptureEnd& command,
                 wire::command::CaptureEnd::Reply&) {
  Stream& stream = worker.issuing();
  const std::shared_ptr<Capture> capture = stream.capture;
  CUgraph handle = nullptr;
  const CUresult result = worker.driver().cuStreamEndCapture(stream.handle, &handle);
  if (!capture || capture->origin != &stream) return result;
  leave_capture(worker, capture);
  if (result == CUDA_SUCCESS || capture->into) return result;
  // The driver has destroyed what it had made.
  if (const auto graph = worker.tables.graphs.remove(command.graph)) {
    worker.graph_names.forget(*graph);
  }
  return result;
}

CUresult execute(Worker& worker, const wire::command::CaptureDependencies&,
                 wire::command::CaptureDependencies::Reply& reply) {
  static thread_local std::vector<uint64_t> ids;
  static thread_local Position position;
  const Stream& stream = worker.issuing();
  if (!stream.capture || !stream.capture->graph) return CUDA_ERROR_ILLEGAL_STATE;
  position = {};
  if (const CUresult result = position_of(worker.driver(), stream.handle, &position);
      result != CUDA_SUCCESS) {
    return result;
  }
  ids.clear();
  for (const CUgraphNode node : position.nodes) {
    ids.push_back(worker.graph_names.name(stream.capture->graph, node).id);
  }
  reply.nodes = ids;
  reply.edges = std::as_bytes(std::span(position.edges));
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::CaptureSetDependencies& command,
                 wire::command::CaptureSetDependencies::Reply&) {
  std::vector<CUgraphNode> nodes;
  std::vector<CUgraphEdgeData> edges;
  if (const CUresult result =
          read_dependencies(worker, command.dependencies, command.edges, &nodes, &edges);
      result != CUDA_SUCCESS) {
    return result;
  }
  const Driver& driver = worker.driver();
  const CUstream stream = worker.issuing().handle;
  return edges.empty() ? driver.cuStreamUpdateCaptureDependencies(stream, nodes.data(),
                                                                  nodes.size(), command.flags)
                       : driver.cuStreamUpdateCaptureDependencies_v2(
                             stream, nodes.data(), edges.data(), nodes.size(), command.flags);
}

CUresult execute(Worker& worker, const wire::command::CaptureAllocation& command,
                 wire::command::CaptureAllocation::Reply& reply) {
  Stream& stream = worker.issuing();
  if (!stream.capture || !stream.capture->graph) return CUDA_ERROR_ILLEGAL_STATE;
  CUgraphNodeParams params = {};
  params.type = CU_GRAPH_NODE_TYPE_MEM_ALLOC;
  params.alloc.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  params.alloc.poolProps.location = {CU_MEM_LOCATION_TYPE_DEVICE, static_cast<int>(command.device)};
  params.alloc.bytesize = command.bytes;
  const CUresult result = allocate_for(worker, *stream.capture->graph, &params);
  if (result != CUDA_SUCCESS) return result;
  reply.address = params.alloc.dptr;
  return add_stand_in(worker, stream, CU_GRAPH_NODE_TYPE_MEM_ALLOC, params);
}

CUresult execute(Worker& worker, const wire::command::CaptureFree& command) {
  CUgraphNodeParams params = {};
  params.type = CU_GRAPH_NODE_TYPE_MEM_FREE;
  params.free.dptr = command.address;
  return add_stand_in(worker, worker.issuing(), CU_GRAPH_NODE_TYPE_MEM_FREE, params);
}

}  // namespace outboard::worker
