// Graphs from their making to their launch.
// SPDX-License-Identifier: Apache-2.0
#include "worker/graphs.hpp"

#include <algorithm>
#include <utility>

#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

bool waits_for_changes(const ExecutableGraph& executable) { return executable.queued == 0; }

std::shared_ptr<Graph> new_graph(Worker& worker, uint64_t id) {
  auto graph = std::make_shared<Graph>();
  graph->id = id;
  graph->context = worker.tables.contexts.share(worker.current()->id);
  return graph;
}

}  // namespace

GraphMemory::~GraphMemory() {
  if (context->alive) worker.memory.release(address);
}

bool GraphRun::may_issue() const {
  return std::all_of(waits.begin(), waits.end(), [](const auto& record) { return record->issued; });
}

void GraphRun::settle() {
  if (!executable) return;
  --executable->queued;
  executable.reset();
  // Also where the launch was refused: whoever waits for a record must not wait for ever.
  for (const auto& record : records) record->issued = true;
}

std::shared_ptr<GraphRun> begin_run(Worker& worker, uint64_t id) {
  const auto executable = worker.tables.executables.share(id);
  if (!executable) return nullptr;
  auto run = std::make_shared<GraphRun>();
  run->executable = executable;
  ++executable->queued;
  for (const auto& weak : executable->waits) {
    const auto event = weak.lock();
    if (event && event->latest) run->waits.push_back(event->latest);
  }
  for (const auto& weak : executable->records) {
    if (const auto event = weak.lock()) run->records.push_back(next_record(worker, *event));
  }
  return run;
}

CUresult execute(Worker& worker, const wire::command::GraphCreate& command) {
  if (!worker.accept_create(worker.tables.graphs.may_insert(command.graph)) || !worker.current()) {
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  auto graph = new_graph(worker, command.graph);
  const CUresult result = worker.driver().cuGraphCreate(&graph->handle, 0);
  if (result != CUDA_SUCCESS) return result;
  worker.tables.graphs.insert(command.graph, std::move(graph));
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::GraphDestroy& command) {
  const auto graph = worker.tables.graphs.remove(command.graph);
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  worker.graph_names.forget(*graph);
  return worker.driver().cuGraphDestroy(graph->handle);
}

CUresult execute(Worker& worker, const wire::command::GraphClone& command,
                 wire::command::GraphClone::Reply&) {
  if (!worker.accept_create(worker.tables.graphs.may_insert(command.clone)) || !worker.current()) {
    return CUDA_ERROR_INVALID_CONTEXT;
  }
  const auto graph = worker.graph(command.graph);
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  auto clone = new_graph(worker, command.clone);
  const CUresult result = worker.driver().cuGraphClone(&clone->handle, graph->handle);
  if (result != CUDA_SUCCESS) return result;
  clone->holdings = gather(worker, *graph);
  worker.tables.graphs.insert(command.clone, clone);
  copy_memory_nodes(worker, graph, clone);
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::GraphRetain& command) {
  const auto graph = worker.graph(command.graph);
  // The client counts on being told, also of what never began.
  auto object = std::make_shared<ClientObject>(worker.host_calls, nullptr, command.object);
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  graph->holdings.objects.push_back({std::move(object), command.count});
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::GraphRelease& command) {
  const auto graph = worker.graph(command.graph);
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  uint32_t left = command.count;
  std::erase_if(graph->holdings.objects, [&](GraphHoldings::UserObject& held) {
    if (held.object->object != command.object) return false;
    const uint32_t taken = std::min(left, held.count);
    held.count -= taken;
    left -= taken;
    return held.count == 0;
  });
  return left == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// ---- executable graphs --------------------------------------------------------------------------

CUresult execute(Worker& worker, const wire::command::GraphInstantiate& command,
                 wire::command::GraphInstantiate::Reply& reply) {
  static thread_local std::vector<uint64_t> events;
  if (!worker.accept_create(worker.tables.executables.may_insert(command.executable))) {
    return CUDA_ERROR_INVALID_HANDLE;
  }
  const auto graph = worker.graph(command.graph);
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  worker.make_current(*graph->context);
  auto executable = std::make_shared<ExecutableGraph>();
  CUDA_GRAPH_INSTANTIATE_PARAMS params = {};
  params.flags = command.flags;
  const CUresult result =
      worker.driver().cuGraphInstantiateWithParams(&executable->handle, graph->handle, &params);
  reply.outcome = static_cast<uint32_t>(params.result_out);
  reply.node = params.hErrNode_out ? worker.graph_names.id_of(params.hErrNode_out) : 0;
  if (result != CUDA_SUCCESS) return result;
  executable->context = graph->context;
  executable->holdings = gather(worker, *graph);
  events = read_events(worker, *executable, graph->handle);
  reply.events = events;
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

CUresult execute(Worker& worker, const wire::command::GraphLaunch&) {
  const std::shared_ptr<GraphRun>& run = worker.issuing_run();
  if (!run || !run->executable) return CUDA_ERROR_INVALID_HANDLE;
  Stream& stream = worker.issuing();
  stream.context->launched = true;
  const CUresult result = worker.driver().cuGraphLaunch(run->executable->handle, stream.handle);
  // Captured, it is a node of another graph, which holds what it holds.
  if (stream.capture && stream.capture->graph) {
    stream.capture->graph->holdings.add(run->executable->holdings);
    return result;
  }
  // Until its node runs the driver answers for the launch before: it says nothing of this stream.
  for (const auto& record : run->records) record->stream.reset();
  return result;
}

CUresult execute(Worker& worker, const wire::command::GraphUpload& command) {
  const ExecutableGraph* executable = worker.tables.executables.find(command.executable);
  if (!executable) return CUDA_ERROR_INVALID_HANDLE;
  return worker.driver().cuGraphUpload(executable->handle, worker.issuing().handle);
}

void execute(Worker& worker, const Request& request,
             const wire::command::GraphExecutableUpdate& command) {
  const auto executable = worker.tables.executables.share(command.executable);
  const auto graph = worker.graph(command.graph);
  if (!executable || !graph) return worker.answer(request, CUDA_ERROR_INVALID_HANDLE);
  worker.completion.when([executable] { return waits_for_changes(*executable); },
                         [&worker, request, executable, graph](CUresult) {
                           if (!executable->context->alive) {
                             return worker.answer(request, CUDA_ERROR_CONTEXT_IS_DESTROYED);
                           }
                           worker.make_current(*executable->context);
                           CUgraphExecUpdateResultInfo info = {};
                           const CUresult result = worker.driver().cuGraphExecUpdate_v2(
                               executable->handle, graph->handle, &info);
                           wire::command::GraphExecutableUpdate::Reply reply;
                           std::vector<uint64_t> events;
                           if (result == CUDA_SUCCESS) {
                             // Launches that run still use what it held before.
                             executable->holdings.add(gather(worker, *graph));
                             events = read_events(worker, *executable, graph->handle);
                           }
                           const GraphNames& names = worker.graph_names;
                           reply.outcome = static_cast<uint32_t>(info.result);
                           reply.node = info.errorNode ? names.id_of(info.errorNode) : 0;
                           reply.from = info.errorFromNode ? names.id_of(info.errorFromNode) : 0;
                           reply.events = events;
                           worker.reply(request, result, reply);
                         });
}

void execute(Worker& worker, const Request& request,
             const wire::command::GraphExecutableSetEnabled& command) {
  const auto executable = worker.tables.executables.share(command.executable);
  const Node* node = worker.graph_names.find(command.node);
  if (!executable || !node) return worker.answer(request, CUDA_ERROR_INVALID_HANDLE);
  worker.completion.when(
      [executable] { return waits_for_changes(*executable); },
      [&worker, request, executable, handle = node->handle, enabled = command.enabled](CUresult) {
        worker.answer(request,
                      worker.driver().cuGraphNodeSetEnabled(executable->handle, handle, enabled));
      });
}

CUresult execute(Worker& worker, const wire::command::GraphExecutableGetEnabled& command,
                 wire::command::GraphExecutableGetEnabled::Reply& reply) {
  const ExecutableGraph* executable = worker.tables.executables.find(command.executable);
  const Node* node = worker.graph_names.find(command.node);
  if (!executable || !node) return CUDA_ERROR_INVALID_HANDLE;
  unsigned enabled = 0;
  const CUresult result =
      worker.driver().cuGraphNodeGetEnabled(executable->handle, node->handle, &enabled);
  reply.enabled = enabled;
  return result;
}

}  // namespace outboard::worker
