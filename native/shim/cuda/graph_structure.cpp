// What is in a graph: nodes and edges, asked for and changed.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>

#include "generated/shim_api.hpp"
#include "shim/cuda/graphs.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

CUresult find_graph(CUgraph value, Graph** out) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  *out = find(value);
  return *out != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult find_node(CUgraphNode value, Node** out) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  *out = find(value);
  return *out != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

bool plain(const CUgraphEdgeData& edge) {
  return edge.from_port == 0 && edge.to_port == 0 && edge.type == 0;
}

/// Lists of nodes that CUDA's queries give out: a null array asks for the count alone, entries
/// beyond what there is become null.
class Listing {
 public:
  void add(uint64_t node) { nodes_.push_back(node); }
  CUresult write(Graph* graph, CUgraphNode* out, size_t* count) const {
    if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (out == nullptr) {
      *count = nodes_.size();
      return CUDA_SUCCESS;
    }
    const size_t written = std::min(*count, nodes_.size());
    for (size_t i = 0; i < written; ++i) {
      Node* node = name_node(graph, nodes_[i]);
      if (node == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
      out[i] = handle(node);
    }
    std::fill(out + written, out + *count, nullptr);
    *count = written;
    return CUDA_SUCCESS;
  }

 private:
  std::vector<uint64_t> nodes_;
};

// The edges that satisfy `wanted(place in the description)`.
template <typename Wanted>
CUresult list_edges(Graph* graph, const Description& description, CUgraphNode* from,
                    CUgraphNode* to, CUgraphEdgeData* data, bool may_lose_data, size_t* count,
                    Wanted&& wanted) {
  Listing starts, ends;
  std::vector<CUgraphEdgeData> edges;
  for (size_t i = 0; i < description.from.size(); ++i) {
    if (!wanted(i)) continue;
    if (!may_lose_data && data == nullptr && !plain(description.edges[i])) {
      return CUDA_ERROR_LOSSY_QUERY;
    }
    starts.add(description.nodes[description.from[i]]);
    ends.add(description.nodes[description.to[i]]);
    edges.push_back(description.edges[i]);
  }
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (from == nullptr && to == nullptr) {
    *count = edges.size();
    return CUDA_SUCCESS;
  }
  const size_t room = *count;
  CUresult result = CUDA_SUCCESS;
  if (from != nullptr) result = starts.write(graph, from, count);
  if (result != CUDA_SUCCESS) return result;
  if (from != nullptr && to != nullptr) *count = room;
  if (to != nullptr) result = ends.write(graph, to, count);
  if (data != nullptr) std::copy_n(edges.begin(), *count, data);
  return result;
}

// The neighbours of a node on one side.
CUresult neighbours(CUgraphNode hNode, CUgraphNode* out, CUgraphEdgeData* data, size_t* count,
                    bool before, bool with_data) {
  Node* node = nullptr;
  if (const CUresult result = find_node(hNode, &node); result != CUDA_SUCCESS) return result;
  if (count == nullptr || (data != nullptr && out == nullptr)) return CUDA_ERROR_INVALID_VALUE;
  Description description;
  const CUresult result = describe(node->graph, &description);
  if (result != CUDA_SUCCESS) return result;
  const auto wanted = [&](size_t edge) {
    const uint32_t own = before ? description.to[edge] : description.from[edge];
    return description.nodes[own] == node->id;
  };
  return list_edges(node->graph, description, before ? out : nullptr, before ? nullptr : out, data,
                    with_data && out == nullptr, count, wanted);
}

CUresult all_edges(CUgraph hGraph, CUgraphNode* from, CUgraphNode* to, CUgraphEdgeData* data,
                   size_t* count, bool with_data) {
  Graph* graph = nullptr;
  if (const CUresult result = find_graph(hGraph, &graph); result != CUDA_SUCCESS) return result;
  if (count == nullptr || (from == nullptr) != (to == nullptr)) return CUDA_ERROR_INVALID_VALUE;
  Description description;
  const CUresult result = describe(graph, &description);
  if (result != CUDA_SUCCESS) return result;
  return list_edges(graph, description, from, to, data, with_data && from == nullptr, count,
                    [](size_t) { return true; });
}

CUresult change_edges(CUgraph hGraph, const CUgraphNode* from, const CUgraphNode* to,
                      const CUgraphEdgeData* data, size_t count, bool remove) {
  Graph* graph = nullptr;
  if (const CUresult result = find_graph(hGraph, &graph); result != CUDA_SUCCESS) return result;
  if (count != 0 && (from == nullptr || to == nullptr)) return CUDA_ERROR_INVALID_VALUE;
  std::vector<uint64_t> starts, ends;
  for (size_t i = 0; i < count; ++i) {
    const Node* start = find(from[i]);
    const Node* end = find(to[i]);
    if (start == nullptr || end == nullptr || start->graph != graph || end->graph != graph) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    starts.push_back(start->id);
    ends.push_back(end->id);
  }
  client::Answer<wire::command::GraphChangeEdges> answer;
  wire::command::GraphChangeEdges command;
  command.graph = graph->id();
  command.remove = remove ? 1 : 0;
  command.from = starts;
  command.to = ends;
  if (data != nullptr) command.edges = std::as_bytes(std::span(data, count));
  return call(graph->context, command, &answer);
}

}  // namespace

CUresult cuGraphGetNodes(CUgraph hGraph, CUgraphNode* nodes, size_t* numNodes) {
  Graph* graph = nullptr;
  if (const CUresult result = find_graph(hGraph, &graph); result != CUDA_SUCCESS) return result;
  if (numNodes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Description description;
  const CUresult result = describe(graph, &description);
  if (result != CUDA_SUCCESS) return result;
  Listing listing;
  for (const uint64_t node : description.nodes) listing.add(node);
  return listing.write(graph, nodes, numNodes);
}

CUresult cuGraphGetRootNodes(CUgraph hGraph, CUgraphNode* rootNodes, size_t* numRootNodes) {
  Graph* graph = nullptr;
  if (const CUresult result = find_graph(hGraph, &graph); result != CUDA_SUCCESS) return result;
  if (numRootNodes == nullptr) return CUDA_ERROR_INVALID_VALUE;
  Description description;
  const CUresult result = describe(graph, &description);
  if (result != CUDA_SUCCESS) return result;
  std::vector<bool> follows(description.nodes.size(), false);
  for (const uint32_t place : description.to) follows[place] = true;
  Listing listing;
  for (size_t i = 0; i < follows.size(); ++i) {
    if (!follows[i]) listing.add(description.nodes[i]);
  }
  return listing.write(graph, rootNodes, numRootNodes);
}

CUresult cuGraphGetEdges_v2(CUgraph hGraph, CUgraphNode* from, CUgraphNode* to,
                            CUgraphEdgeData* edgeData, size_t* numEdges) {
  return all_edges(hGraph, from, to, edgeData, numEdges, true);
}
CUresult cuGraphGetEdges(CUgraph hGraph, CUgraphNode* from, CUgraphNode* to, size_t* numEdges) {
  return all_edges(hGraph, from, to, nullptr, numEdges, false);
}

CUresult cuGraphNodeGetDependencies_v2(CUgraphNode hNode, CUgraphNode* dependencies,
                                       CUgraphEdgeData* edgeData, size_t* numDependencies) {
  return neighbours(hNode, dependencies, edgeData, numDependencies, true, true);
}
CUresult cuGraphNodeGetDependencies(CUgraphNode hNode, CUgraphNode* dependencies,
                                    size_t* numDependencies) {
  return neighbours(hNode, dependencies, nullptr, numDependencies, true, false);
}
CUresult cuGraphNodeGetDependentNodes_v2(CUgraphNode hNode, CUgraphNode* dependentNodes,
                                         CUgraphEdgeData* edgeData, size_t* numDependentNodes) {
  return neighbours(hNode, dependentNodes, edgeData, numDependentNodes, false, true);
}
CUresult cuGraphNodeGetDependentNodes(CUgraphNode hNode, CUgraphNode* dependentNodes,
                                      size_t* numDependentNodes) {
  return neighbours(hNode, dependentNodes, nullptr, numDependentNodes, false, false);
}

CUresult cuGraphAddDependencies_v2(CUgraph hGraph, const CUgraphNode* from, const CUgraphNode* to,
                                   const CUgraphEdgeData* edgeData, size_t numDependencies) {
  return change_edges(hGraph, from, to, edgeData, numDependencies, false);
}
CUresult cuGraphAddDependencies(CUgraph hGraph, const CUgraphNode* from, const CUgraphNode* to,
                                size_t numDependencies) {
  return change_edges(hGraph, from, to, nullptr, numDependencies, false);
}
CUresult cuGraphRemoveDependencies_v2(CUgraph hGraph, const CUgraphNode* from,
                                      const CUgraphNode* to, const CUgraphEdgeData* edgeData,
                                      size_t numDependencies) {
  return change_edges(hGraph, from, to, edgeData, numDependencies, true);
}
CUresult cuGraphRemoveDependencies(CUgraph hGraph, const CUgraphNode* from, const CUgraphNode* to,
                                   size_t numDependencies) {
  return change_edges(hGraph, from, to, nullptr, numDependencies, true);
}

CUresult cuGraphNodeGetType(CUgraphNode hNode, CUgraphNodeType* type) {
  Node* node = nullptr;
  if (const CUresult result = find_node(hNode, &node); result != CUDA_SUCCESS) return result;
  if (type == nullptr) return CUDA_ERROR_INVALID_VALUE;
  client::Answer<wire::command::NodeGetType> answer;
  const CUresult result =
      call(node->graph->context, wire::command::NodeGetType{.node = node->id}, &answer);
  if (result == CUDA_SUCCESS) *type = static_cast<CUgraphNodeType>(answer.reply.type);
  return result;
}

CUresult cuGraphDestroyNode(CUgraphNode hNode) {
  Node* node = nullptr;
  if (const CUresult result = find_node(hNode, &node); result != CUDA_SUCCESS) return result;
  client::Answer<wire::command::NodeDestroy> answer;
  const CUresult result =
      call(node->graph->context, wire::command::NodeDestroy{.node = node->id}, &answer);
  if (result == CUDA_SUCCESS) forget(node);
  return result;
}

CUresult cuGraphNodeFindInClone(CUgraphNode* phNode, CUgraphNode hOriginalNode,
                                CUgraph hClonedGraph) {
  Node* node = nullptr;
  if (const CUresult result = find_node(hOriginalNode, &node); result != CUDA_SUCCESS)
    return result;
  Graph* clone = find(hClonedGraph);
  if (phNode == nullptr || clone == nullptr) return CUDA_ERROR_INVALID_VALUE;
  client::Answer<wire::command::NodeFindInClone> answer;
  const CUresult result =
      call(clone->context, wire::command::NodeFindInClone{.node = node->id, .clone = clone->id()},
           &answer);
  if (result != CUDA_SUCCESS) return result;
  Node* found = name_node(clone, answer.reply.node);
  if (found == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  *phNode = handle(found);
  return CUDA_SUCCESS;
}

CUresult cuGraphDebugDotPrint(CUgraph hGraph, const char* path, unsigned int flags) {
  Graph* graph = nullptr;
  if (const CUresult result = find_graph(hGraph, &graph); result != CUDA_SUCCESS) return result;
  if (path == nullptr) return CUDA_ERROR_INVALID_VALUE;
  client::Answer<wire::command::GraphDot> answer;
  const CUresult result =
      call(graph->context, wire::command::GraphDot{.graph = graph->id(), .flags = flags}, &answer);
  if (result != CUDA_SUCCESS) return result;
  FILE* file = std::fopen(path, "we");
  if (file == nullptr) return CUDA_ERROR_OPERATING_SYSTEM;
  const std::string_view text = answer.reply.text;
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  return std::fclose(file) == 0 && written ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

}  // namespace outboard::shim
