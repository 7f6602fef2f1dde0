// Graphs: nodes, edges, copies, and an order to run them in.
// SPDX-License-Identifier: Apache-2.0
#include "graph.hpp"

#include <algorithm>
#include <map>

#include "context.hpp"
#include "graph_memory.hpp"
#include "memory_map.hpp"

namespace softgpu {

HandleTable<Graph, CUgraph, 4>& graphs() {
  static auto& table = *new HandleTable<Graph, CUgraph, 4>;
  return table;
}
HandleTable<GraphNode, CUgraphNode, 5>& graph_nodes() {
  static auto& table = *new HandleTable<GraphNode, CUgraphNode, 5>;
  return table;
}

namespace {

struct TypeOf {
  CUgraphNodeType operator()(const KernelOperation&) { return CU_GRAPH_NODE_TYPE_KERNEL; }
  CUgraphNodeType operator()(const CopyOperation&) { return CU_GRAPH_NODE_TYPE_MEMCPY; }
  CUgraphNodeType operator()(const MemsetOperation&) { return CU_GRAPH_NODE_TYPE_MEMSET; }
  CUgraphNodeType operator()(const HostOperation&) { return CU_GRAPH_NODE_TYPE_HOST; }
  CUgraphNodeType operator()(const EmptyContent&) { return CU_GRAPH_NODE_TYPE_EMPTY; }
  CUgraphNodeType operator()(const ChildContent&) { return CU_GRAPH_NODE_TYPE_GRAPH; }
  CUgraphNodeType operator()(const RecordContent&) { return CU_GRAPH_NODE_TYPE_EVENT_RECORD; }
  CUgraphNodeType operator()(const WaitContent&) { return CU_GRAPH_NODE_TYPE_WAIT_EVENT; }
  CUgraphNodeType operator()(const ValueContent&) { return CU_GRAPH_NODE_TYPE_BATCH_MEM_OP; }
  CUgraphNodeType operator()(const AllocContent&) { return CU_GRAPH_NODE_TYPE_MEM_ALLOC; }
  CUgraphNodeType operator()(const FreeContent&) { return CU_GRAPH_NODE_TYPE_MEM_FREE; }
  CUgraphNodeType operator()(const ConditionalContent&) { return CU_GRAPH_NODE_TYPE_CONDITIONAL; }
};

}  // namespace

CUgraphNodeType GraphNode::type() const { return std::visit(TypeOf{}, content); }

GraphMemoryUse& graph_memory() {
  static auto& use = *new GraphMemoryUse;
  return use;
}

GraphMemory::~GraphMemory() {
  graph_memory().used -= bytes;
  if (auto a = MemoryMap::get().erase(base, MemoryKind::pool)) MemoryMap::release(*a);
}

CUresult graph_allocation(MemoryPool& pool, size_t bytes, AllocContent* out) {
  uint64_t base = pool.allocate(bytes);
  if (base == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  Allocation a;
  a.base = base;
  a.size = bytes;
  a.kind = MemoryKind::pool;
  a.device = &pool.device;
  a.pool = pool.shared_from_this();
  MemoryMap::get().insert(std::move(a));
  out->memory = std::make_shared<GraphMemory>();
  out->memory->base = base;
  out->memory->bytes = bytes;
  const uint64_t used = graph_memory().used += bytes;
  graph_memory().high = std::max(graph_memory().high.load(), used);
  out->parameters.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  out->parameters.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  out->parameters.poolProps.location.id = pool.device.ordinal;
  out->parameters.bytesize = bytes;
  out->parameters.dptr = base;
  return CUDA_SUCCESS;
}

Graph::~Graph() {
  for (auto& node : nodes) {
    graph_nodes().erase(node->handle);
    if (auto* child = std::get_if<ChildContent>(&node->content)) {
      if (child->graph) graphs().erase(child->graph->handle);
    }
    if (auto* conditional = std::get_if<ConditionalContent>(&node->content)) {
      for (const auto& body : conditional->bodies) graphs().erase(body->handle);
    }
  }
}

GraphNode* Graph::add(NodeContent content, std::vector<GraphNode*> dependencies) {
  auto node = std::make_shared<GraphNode>();
  node->graph = this;
  node->content = std::move(content);
  node->handle = graph_nodes().insert(node);
  nodes.push_back(node);
  for (GraphNode* from : dependencies) connect(from, node.get());
  return node.get();
}

void Graph::remove(GraphNode* node) {
  for (GraphNode* from : node->dependencies) std::erase(from->dependents, node);
  for (GraphNode* to : node->dependents) std::erase(to->dependencies, node);
  graph_nodes().erase(node->handle);
  std::erase_if(nodes, [&](const auto& n) { return n.get() == node; });
}

bool Graph::connect(GraphNode* from, GraphNode* to) {
  auto& list = to->dependencies;
  if (std::find(list.begin(), list.end(), from) != list.end()) return false;
  list.push_back(from);
  from->dependents.push_back(to);
  return true;
}

bool Graph::disconnect(GraphNode* from, GraphNode* to) {
  std::erase(from->dependents, to);
  return std::erase(to->dependencies, from) > 0;
}

bool Graph::can_be_copied() const {
  return std::none_of(nodes.begin(), nodes.end(), [](const auto& node) {
    return node->type() == CU_GRAPH_NODE_TYPE_CONDITIONAL;
  });
}

std::shared_ptr<Graph> Graph::clone() const {
  auto copy = std::make_shared<Graph>();
  std::map<const GraphNode*, GraphNode*> made;
  for (const auto& node : nodes) {
    NodeContent content = node->content;
    if (auto* child = std::get_if<ChildContent>(&content)) {
      child->graph = child->graph->clone();
      child->graph->is_child = true;
      child->graph->handle = graphs().insert(child->graph);
    }
    GraphNode* n = copy->add(std::move(content), {});
    n->original = node->handle;
    n->attributes = node->attributes;
    made[node.get()] = n;
  }
  for (const auto& node : nodes) {
    for (GraphNode* from : node->dependencies) connect(made[from], made[node.get()]);
  }
  copy->user_objects = user_objects;
  return copy;
}

std::vector<GraphNode*> Graph::ordered() const {
  std::map<const GraphNode*, size_t> missing;
  std::vector<GraphNode*> order;
  for (const auto& node : nodes) {
    missing[node.get()] = node->dependencies.size();
    if (node->dependencies.empty()) order.push_back(node.get());
  }
  for (size_t i = 0; i < order.size(); ++i) {
    for (GraphNode* to : order[i]->dependents) {
      if (--missing[to] == 0) order.push_back(to);
    }
  }
  if (order.size() != nodes.size()) order.clear();
  return order;
}

}  // namespace softgpu
