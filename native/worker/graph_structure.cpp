// What is in a graph: names of its nodes, its edges, what it keeps alive.
// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/fds.hpp"
#include "worker/graph_nodes.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {

// ---- names --------------------------------------------------------------------------------------

Node& GraphNames::name(const std::shared_ptr<Graph>& graph, CUgraphNode handle) {
  if (const auto known = by_handle_.find(handle); known != by_handle_.end()) {
    return *nodes_.at(known->second);
  }
  auto node = std::make_unique<Node>();
  node->id = ++last_;
  node->handle = handle;
  node->graph = graph;
  Node& named = *node;
  by_handle_.emplace(handle, named.id);
  graph->nodes.insert(named.id);
  nodes_.emplace(named.id, std::move(node));
  return named;
}

Node* GraphNames::find(uint64_t id) const {
  const auto found = nodes_.find(id);
  return found != nodes_.end() ? found->second.get() : nullptr;
}

uint64_t GraphNames::id_of(CUgraphNode handle) const {
  const auto found = by_handle_.find(handle);
  return found != by_handle_.end() ? found->second : 0;
}

void GraphNames::forget_node(uint64_t id) {
  const auto found = nodes_.find(id);
  if (found == nodes_.end()) return;
  const std::unique_ptr<Node> node = std::move(found->second);
  nodes_.erase(found);
  by_handle_.erase(node->handle);
  if (const auto graph = node->graph.lock()) graph->nodes.erase(id);
  for (const uint64_t inner : node->graphs) {
    const auto entry = inside_.find(inner);
    if (entry == inside_.end()) continue;
    const std::shared_ptr<Graph> graph = entry->second;
    inside_.erase(entry);
    forget(*graph);
  }
}

std::shared_ptr<Graph> GraphNames::add_inside(const Graph& outer, Node& node, CUgraph handle) {
  auto graph = std::make_shared<Graph>();
  graph->context = outer.context;
  graph->handle = handle;
  graph->id = ++last_;
  graph->inside = true;
  node.graphs.push_back(graph->id);
  inside_.emplace(graph->id, graph);
  return graph;
}

std::shared_ptr<Graph> GraphNames::inside(uint64_t id) const {
  const auto found = inside_.find(id);
  return found != inside_.end() ? found->second : nullptr;
}

void GraphNames::forget(const Graph& graph) {
  const auto nodes = graph.nodes;  // forgetting a node takes it out of the graph's
  for (const uint64_t id : nodes) forget_node(id);
}

void GraphNames::forget_context(const Context& context) {
  std::vector<std::shared_ptr<Graph>> graphs;
  for (const auto& [id, graph] : inside_) {
    if (graph->context.get() == &context) graphs.push_back(graph);
  }
  for (const auto& graph : graphs) {
    forget(*graph);
    inside_.erase(graph->id);
  }
}

// ---- holdings -----------------------------------------------------------------------------------

void GraphHoldings::add(const GraphHoldings& other) {
  functions.insert(functions.end(), other.functions.begin(), other.functions.end());
  objects.insert(objects.end(), other.objects.begin(), other.objects.end());
  memory.insert(memory.end(), other.memory.begin(), other.memory.end());
  for (const auto& [handle, event] : other.events) events.insert_or_assign(handle, event);
}

GraphHoldings gather(Worker& worker, const Graph& graph) {
  GraphHoldings all = graph.holdings;
  for (const uint64_t id : graph.nodes) {
    const Node* node = worker.graph_names.find(id);
    if (!node) continue;
    for (const uint64_t inner : node->graphs) {
      if (const auto found = worker.graph_names.inside(inner)) all.add(gather(worker, *found));
    }
  }
  return all;
}

CUresult nodes_of(const Worker& worker, CUgraph graph, std::vector<CUgraphNode>* nodes) {
  size_t count = 0;
  CUresult result = worker.driver().cuGraphGetNodes(graph, nullptr, &count);
  nodes->resize(count);
  if (result == CUDA_SUCCESS && count != 0) {
    result = worker.driver().cuGraphGetNodes(graph, nodes->data(), &count);
    nodes->resize(count);
  }
  return result;
}

// A driver keeps the order of the nodes in a copy.
void copy_memory_nodes(Worker& worker, const std::shared_ptr<Graph>& from,
                       const std::shared_ptr<Graph>& to) {
  const bool any = std::any_of(from->nodes.begin(), from->nodes.end(), [&](uint64_t id) {
    const Node* node = worker.graph_names.find(id);
    return node && node->is_memory();
  });
  std::vector<CUgraphNode> originals;
  std::vector<CUgraphNode> copies;
  if (!any || nodes_of(worker, from->handle, &originals) != CUDA_SUCCESS ||
      nodes_of(worker, to->handle, &copies) != CUDA_SUCCESS || originals.size() != copies.size()) {
    return;
  }
  for (size_t i = 0; i < originals.size(); ++i) {
    const Node* original = worker.graph_names.find(worker.graph_names.id_of(originals[i]));
    if (!original || !original->is_memory()) continue;
    const CUgraphNodeType type = original->stands_for;
    const CUgraphNodeParams memory = original->memory;
    Node& copy = worker.graph_names.name(to, copies[i]);
    copy.stands_for = type;
    copy.memory = memory;
  }
}

namespace {

// `take(type, event)` for every event node of the graph and of graphs within.
template <typename Take>
void each_event(const Worker& worker, CUgraph graph, const Take& take) {
  const Driver& driver = worker.driver();
  std::vector<CUgraphNode> nodes;
  if (nodes_of(worker, graph, &nodes) != CUDA_SUCCESS) return;
  for (const CUgraphNode node : nodes) {
    CUgraphNodeType type = CU_GRAPH_NODE_TYPE_EMPTY;
    driver.cuGraphNodeGetType(node, &type);
    CUevent event = nullptr;
    CUgraph child = nullptr;
    if (type == CU_GRAPH_NODE_TYPE_EVENT_RECORD) {
      driver.cuGraphEventRecordNodeGetEvent(node, &event);
    } else if (type == CU_GRAPH_NODE_TYPE_WAIT_EVENT) {
      driver.cuGraphEventWaitNodeGetEvent(node, &event);
    } else if (type == CU_GRAPH_NODE_TYPE_GRAPH &&
               driver.cuGraphChildGraphNodeGetGraph(node, &child) == CUDA_SUCCESS) {
      each_event(worker, child, take);
    }
    if (event) take(type, event);
  }
}

}  // namespace

std::vector<uint64_t> read_events(Worker& worker, ExecutableGraph& executable, CUgraph graph) {
  executable.records.clear();
  executable.waits.clear();
  if (!executable.holdings.events.empty()) {
    each_event(worker, graph, [&](CUgraphNodeType type, CUevent handle) {
      const auto held = executable.holdings.events.find(handle);
      if (held == executable.holdings.events.end()) return;
      auto& list = type == CU_GRAPH_NODE_TYPE_EVENT_RECORD ? executable.records : executable.waits;
      list.push_back(held->second.second);
    });
  }
  return recorded_ids(executable);
}

std::vector<uint64_t> recorded_ids(const ExecutableGraph& executable) {
  std::vector<uint64_t> ids;
  for (const auto& weak : executable.records) {
    if (const auto event = weak.lock()) ids.push_back(event->id);
  }
  return ids;
}

// ---- commands -----------------------------------------------------------------------------------

namespace {

struct Description {
  std::vector<uint64_t> nodes;
  std::vector<uint32_t> types, from, to;
  std::vector<CUgraphEdgeData> edges;
};

CUresult describe_nodes(Worker& worker, const std::shared_ptr<Graph>& graph,
                        std::unordered_map<CUgraphNode, uint32_t>& places, Description& out) {
  std::vector<CUgraphNode> nodes;
  if (const CUresult result = nodes_of(worker, graph->handle, &nodes); result != CUDA_SUCCESS) {
    return result;
  }
  for (const CUgraphNode handle : nodes) {
    CUgraphNodeType type = CU_GRAPH_NODE_TYPE_EMPTY;
    if (const CUresult result = worker.driver().cuGraphNodeGetType(handle, &type);
        result != CUDA_SUCCESS) {
      return result;
    }
    places.emplace(handle, static_cast<uint32_t>(out.nodes.size()));
    const Node& node = worker.graph_names.name(graph, handle);
    out.nodes.push_back(node.id);
    out.types.push_back(static_cast<uint32_t>(node.is_memory() ? node.stands_for : type));
  }
  return CUDA_SUCCESS;
}

CUresult describe_edges(const Worker& worker, const Graph& graph,
                        const std::unordered_map<CUgraphNode, uint32_t>& places, Description& out) {
  const Driver& driver = worker.driver();
  size_t count = 0;
  CUresult result = driver.cuGraphGetEdges(graph.handle, nullptr, nullptr, &count);
  // Edges with data of their own cannot be told without it.
  const bool with_data = result == CUDA_ERROR_LOSSY_QUERY;
  if (with_data) {
    result = driver.cuGraphGetEdges_v2(graph.handle, nullptr, nullptr, nullptr, &count);
  }
  std::vector<CUgraphNode> from(count), to(count);
  out.edges.resize(count);
  if (result == CUDA_SUCCESS && count != 0) {
    result =
        driver.cuGraphGetEdges_v2(graph.handle, from.data(), to.data(), out.edges.data(), &count);
    if (result == CUDA_ERROR_NOT_SUPPORTED) {  // before CUDA 12.3
      result = driver.cuGraphGetEdges(graph.handle, from.data(), to.data(), &count);
    }
  }
  if (result != CUDA_SUCCESS) return result;
  for (size_t i = 0; i < count; ++i) {
    out.from.push_back(places.at(from[i]));
    out.to.push_back(places.at(to[i]));
  }
  return CUDA_SUCCESS;
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::GraphDescribe& command,
                 wire::command::GraphDescribe::Reply& reply) {
  static thread_local Description description;
  const auto graph = worker.graph(command.graph);
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  description = {};
  std::unordered_map<CUgraphNode, uint32_t> places;
  CUresult result = describe_nodes(worker, graph, places, description);
  if (result == CUDA_SUCCESS) result = describe_edges(worker, *graph, places, description);
  reply.nodes = description.nodes;
  reply.types = description.types;
  reply.from = description.from;
  reply.to = description.to;
  reply.edges = std::as_bytes(std::span(description.edges));
  return result;
}

CUresult execute(Worker& worker, const wire::command::GraphDot& command,
                 wire::command::GraphDot::Reply& reply) {
  static thread_local std::string text;
  const auto graph = worker.graph(command.graph);
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  // The driver writes a file by its name; one in memory has a name as well.
  const UniqueFd file(::memfd_create("graph", MFD_CLOEXEC));
  if (file.get() < 0) return CUDA_ERROR_OPERATING_SYSTEM;
  const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  const CUresult result =
      worker.driver().cuGraphDebugDotPrint(graph->handle, path.c_str(), command.flags);
  text.clear();
  char piece[16384];
  ssize_t got = 0;
  while ((got = ::pread(file.get(), piece, sizeof piece, static_cast<off_t>(text.size()))) > 0) {
    text.append(piece, static_cast<size_t>(got));
  }
  reply.text = text;
  return result;
}

CUresult execute(Worker& worker, const wire::command::GraphChangeEdges& command,
                 wire::command::GraphChangeEdges::Reply&) {
  const auto graph = worker.graph(command.graph);
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  std::vector<CUgraphNode> from, to;
  std::vector<CUgraphEdgeData> edges, none;
  CUresult result = read_dependencies(worker, command.from, command.edges, &from, &edges);
  if (result == CUDA_SUCCESS) result = read_dependencies(worker, command.to, {}, &to, &none);
  if (result != CUDA_SUCCESS) return result;
  if (from.size() != to.size()) return CUDA_ERROR_INVALID_VALUE;
  const Driver& driver = worker.driver();
  if (edges.empty()) {
    return command.remove != 0
               ? driver.cuGraphRemoveDependencies(graph->handle, from.data(), to.data(),
                                                  from.size())
               : driver.cuGraphAddDependencies(graph->handle, from.data(), to.data(), from.size());
  }
  return command.remove != 0
             ? driver.cuGraphRemoveDependencies_v2(graph->handle, from.data(), to.data(),
                                                   edges.data(), from.size())
             : driver.cuGraphAddDependencies_v2(graph->handle, from.data(), to.data(), edges.data(),
                                                from.size());
}

CUresult execute(Worker& worker, const wire::command::NodeGetType& command,
                 wire::command::NodeGetType::Reply& reply) {
  const Node* node = worker.graph_names.find(command.node);
  if (!node) return CUDA_ERROR_INVALID_HANDLE;
  CUgraphNodeType type = node->stands_for;
  const CUresult result =
      node->is_memory() ? CUDA_SUCCESS : worker.driver().cuGraphNodeGetType(node->handle, &type);
  reply.type = static_cast<uint32_t>(type);
  return result;
}

CUresult execute(Worker& worker, const wire::command::NodeDestroy& command,
                 wire::command::NodeDestroy::Reply&) {
  const Node* node = worker.graph_names.find(command.node);
  if (!node) return CUDA_ERROR_INVALID_HANDLE;
  const CUresult result = worker.driver().cuGraphDestroyNode(node->handle);
  if (result == CUDA_SUCCESS) worker.graph_names.forget_node(command.node);
  return result;
}

CUresult execute(Worker& worker, const wire::command::NodeFindInClone& command,
                 wire::command::NodeFindInClone::Reply& reply) {
  const Node* node = worker.graph_names.find(command.node);
  const auto clone = worker.graph(command.clone);
  if (!node || !clone) return CUDA_ERROR_INVALID_HANDLE;
  CUgraphNode found = nullptr;
  const CUresult result =
      worker.driver().cuGraphNodeFindInClone(&found, node->handle, clone->handle);
  if (result == CUDA_SUCCESS) reply.node = worker.graph_names.name(clone, found).id;
  return result;
}

}  // namespace outboard::worker
