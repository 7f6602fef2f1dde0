// Graphs: their making and end, and the names of what is in them.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

#include "generated/shim_api.hpp"
#include "shim/cuda/graph_copies.hpp"
#include "shim/cuda/graphs.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

// Guards the names below, and what graphs and nodes know of each other.
constinit std::mutex names_mutex;

using Name = std::pair<const client::Server*, uint64_t>;
std::map<Name, Node*>& named_nodes() {
  static auto* const map = new std::map<Name, Node*>;
  return *map;
}
std::map<Name, Graph*>& named_graphs() {
  static auto* const map = new std::map<Name, Graph*>;
  return *map;
}

void forget_locked(Graph* graph);

void forget_locked(Node* node) {
  named_nodes().erase({node->graph->context->server, node->id});
  for (Graph* inside : node->graphs) forget_locked(inside);
  node->graphs.clear();
  nodes.give(node);
}

void forget_locked(Graph* graph) {
  if (graph->inside != 0) named_graphs().erase({graph->context->server, graph->inside});
  for (Node* node : graph->nodes) forget_locked(node);
  graph->nodes.clear();
  graphs.give(graph);
}

}  // namespace

Node* name_node(Graph* graph, uint64_t id) {
  const std::lock_guard guard(names_mutex);
  Node*& named = named_nodes()[{graph->context->server, id}];
  if (named != nullptr) return named;
  named = nodes.take();
  if (named == nullptr) return nullptr;
  named->graph = graph;
  named->id = id;
  graph->nodes.push_back(named);
  return named;
}

Graph* name_inside(Node* node, uint64_t id) {
  const std::lock_guard guard(names_mutex);
  Graph*& named = named_graphs()[{node->graph->context->server, id}];
  if (named != nullptr) return named;
  named = graphs.take();
  if (named == nullptr) return nullptr;
  named->context = node->graph->context;
  named->inside = id;
  named->has_host_parts = node->graph->has_host_parts;
  node->graphs.push_back(named);
  return named;
}

void forget(Node* node) {
  const std::lock_guard guard(names_mutex);
  std::erase(node->graph->nodes, node);
  forget_locked(node);
}

void forget(Graph* graph) {
  // What it keeps may take locks as it goes.
  const auto keeps = std::exchange(graph->keeps, {});
  const std::lock_guard guard(names_mutex);
  forget_locked(graph);
}

void forget(GraphExec* executable) {
  const auto keeps = std::exchange(executable->keeps, {});
  const auto plan = std::exchange(executable->plan, nullptr);
  graph_execs.give(executable);
}

void forget_graphs(const Context* context) {
  std::vector<Graph*> mine;
  graphs.for_each([&](Graph* graph) {
    if (graph->context == context && graph->inside == 0) mine.push_back(graph);
  });
  for (Graph* graph : mine) forget(graph);
  graph_execs.for_each([context](GraphExec* executable) {
    if (executable->context == context) forget(executable);
  });
}

CUresult describe(Graph* graph, Description* out) {
  client::Answer<wire::command::GraphDescribe> answer;
  const CUresult result =
      call(graph->context, wire::command::GraphDescribe{.graph = graph->id()}, &answer);
  if (result != CUDA_SUCCESS) return result;
  const auto& reply = answer.reply;
  out->nodes.assign(reply.nodes.begin(), reply.nodes.end());
  out->types.assign(reply.types.begin(), reply.types.end());
  out->from.assign(reply.from.begin(), reply.from.end());
  out->to.assign(reply.to.begin(), reply.to.end());
  out->edges.resize(out->from.size());
  const size_t bytes = out->edges.size() * sizeof(CUgraphEdgeData);
  const auto outside = [&](uint32_t place) { return place >= out->nodes.size(); };
  if (out->types.size() != out->nodes.size() || out->to.size() != out->from.size() ||
      reply.edges.size() != bytes || std::any_of(out->from.begin(), out->from.end(), outside) ||
      std::any_of(out->to.begin(), out->to.end(), outside)) {
    return CUDA_ERROR_UNKNOWN;
  }
  if (bytes != 0) std::memcpy(out->edges.data(), reply.edges.data(), bytes);
  return CUDA_SUCCESS;
}

CUresult node_ids(const Graph* graph, const CUgraphNode* handles, size_t count,
                  std::vector<uint64_t>* out) {
  if (handles == nullptr && count != 0) return CUDA_ERROR_INVALID_VALUE;
  for (size_t i = 0; i < count; ++i) {
    const Node* node = find(handles[i]);
    if (node == nullptr || (graph != nullptr && node->graph != graph)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (std::find(out->begin(), out->end(), node->id) != out->end() && graph != nullptr) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    out->push_back(node->id);
  }
  return CUDA_SUCCESS;
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
  if (graph == nullptr || graph->inside != 0) return CUDA_ERROR_INVALID_VALUE;
  const CUresult result =
      send(graph->context, wire::command::GraphDestroy{.graph = graph->head.id()});
  forget(graph);
  return result;
}

CUresult cuGraphClone(CUgraph* phGraphClone, CUgraph originalGraph) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  const Graph* original = find(originalGraph);
  if (phGraphClone == nullptr || original == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Graph* clone = graphs.take();
  if (clone == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  clone->context = original->context;
  clone->has_host_parts = original->has_host_parts;
  clone->keeps = original->keeps;
  client::Answer<wire::command::GraphClone> answer;
  const CUresult result =
      call(original->context,
           wire::command::GraphClone{.graph = original->id(), .clone = clone->head.id()}, &answer);
  if (result != CUDA_SUCCESS) {
    forget(clone);
    return result;
  }
  *phGraphClone = handle(clone);
  return CUDA_SUCCESS;
}

CUresult cuGraphConditionalHandleCreate(CUgraphConditionalHandle* pHandle_out, CUgraph hGraph,
                                        CUcontext ctx, unsigned int defaultLaunchValue,
                                        unsigned int flags) {
  Context* context = nullptr;
  if (const CUresult result = enter(&context); result != CUDA_SUCCESS) return result;
  const Graph* graph = find(hGraph);
  if (ctx != nullptr) context = find(ctx);
  if (pHandle_out == nullptr || graph == nullptr || context == nullptr) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  client::Answer<wire::command::GraphConditionalHandle> answer;
  const CUresult result =
      call(context,
           wire::command::GraphConditionalHandle{
               .graph = graph->id(), .value = defaultLaunchValue, .flags = flags},
           &answer);
  if (result == CUDA_SUCCESS) *pHandle_out = answer.reply.handle;
  return result;
}

}  // namespace outboard::shim
