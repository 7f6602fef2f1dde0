// Stream capture and graphs.
// SPDX-License-Identifier: Apache-2.0
#include "worker/graphs.hpp"

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

CUresult node_count(const Driver& driver, CUgraph graph, uint64_t* nodes) {
  size_t count = 0;
  const CUresult result = driver.cuGraphGetNodes(graph, nullptr, &count);
  *nodes = count;
  return result;
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::CaptureBegin&,
                 wire::command::CaptureBegin::Reply& reply) {
  Stream& stream = worker.issuing();
  const Driver& driver = worker.driver();
  worker.completion.mark(stream);  // not possible while it captures
  // The client keeps the modes' rules; here nothing of another thread may be refused for them.
  const CUresult result =
      driver.cuStreamBeginCapture_v2(stream.handle, CU_STREAM_CAPTURE_MODE_RELAXED);
  if (result != CUDA_SUCCESS) return result;
  stream.capture = std::make_shared<Capture>(Capture{&stream});
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  cuuint64_t id = 0;
  driver.cuStreamGetCaptureInfo_v2(stream.handle, &status, &id, nullptr, nullptr, nullptr);
  reply.capture_id = id;
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::CaptureEnd& command,
                 wire::command::CaptureEnd::Reply& reply) {
  if (!worker.accept_create(worker.tables.graphs.may_insert(command.graph))) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  Stream& stream = worker.issuing();
  const std::shared_ptr<Capture> capture = stream.capture;
  auto graph = std::make_shared<Graph>();
  const CUresult result = worker.driver().cuStreamEndCapture(stream.handle, &graph->handle);
  if (capture && capture->origin == &stream) leave_capture(worker, capture);
  if (result != CUDA_SUCCESS) return result;
  graph->context = worker.tables.contexts.share(stream.context->id);
  const CUgraph handle = graph->handle;
  worker.tables.graphs.insert(command.graph, std::move(graph));
  return node_count(worker.driver(), handle, &reply.nodes);
}

CUresult execute(Worker& worker, const wire::command::GraphCreate& command) {
  if (!worker.accept_create(worker.tables.graphs.may_insert(command.graph)) || !worker.current()) {
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  auto graph = std::make_shared<Graph>();
  const CUresult result = worker.driver().cuGraphCreate(&graph->handle, 0);
  if (result != CUDA_SUCCESS) return result;
  graph->context = worker.tables.contexts.share(worker.current()->id);
  worker.tables.graphs.insert(command.graph, std::move(graph));
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::GraphDestroy& command) {
  const auto graph = worker.tables.graphs.remove(command.graph);
  return graph ? worker.driver().cuGraphDestroy(graph->handle) : CUDA_ERROR_INVALID_HANDLE;
}

CUresult execute(Worker& worker, const wire::command::GraphInstantiate& command,
                 wire::command::GraphInstantiate::Reply&) {
  if (!worker.accept_create(worker.tables.executables.may_insert(command.executable))) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  const Graph* graph = worker.tables.graphs.find(command.graph);
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  worker.make_current(*graph->context);
  auto executable = std::make_shared<ExecutableGraph>();
  const CUresult result = worker.driver().cuGraphInstantiateWithFlags(&executable->handle,
                                                                      graph->handle, command.flags);
  if (result != CUDA_SUCCESS) return result;
  executable->context = graph->context;
  worker.tables.executables.insert(command.executable, std::move(executable));
  return CUDA_SUCCESS;
}

// A launched graph must live until it has run: it goes when the context's present work is done.
CUresult execute(Worker& worker, const wire::command::GraphExecutableDestroy& command) {
  const auto executable = worker.tables.executables.remove(command.executable);
  if (!executable) return CUDA_ERROR_INVALID_HANDLE;
  worker.completion.when_done(*executable->context, [&worker, executable](CUresult result) {
    if (result != CUDA_SUCCESS || !executable->context->alive) return;
    worker.make_current(*executable->context);
    worker.driver().cuGraphExecDestroy(executable->handle);
  });
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::GraphLaunch& command) {
  const ExecutableGraph* executable = worker.tables.executables.find(command.executable);
  if (!executable) return CUDA_ERROR_INVALID_HANDLE;
  worker.issuing().context->launched = true;
  return worker.driver().cuGraphLaunch(executable->handle, worker.issuing().handle);
}

CUresult execute(Worker& worker, const wire::command::GraphUpload& command) {
  const ExecutableGraph* executable = worker.tables.executables.find(command.executable);
  if (!executable) return CUDA_ERROR_INVALID_HANDLE;
  return worker.driver().cuGraphUpload(executable->handle, worker.issuing().handle);
}

CUresult execute(Worker& worker, const wire::command::GraphNodeCount& command,
                 wire::command::GraphNodeCount::Reply& reply) {
  const Graph* graph = worker.tables.graphs.find(command.graph);
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  return node_count(worker.driver(), graph->handle, &reply.nodes);
}

}  // namespace outboard::worker
