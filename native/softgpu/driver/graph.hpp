// Graphs: operations and what each of them waits for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <variant>
#include <vector>

#include "event.hpp"
#include "handles.hpp"
#include "operation.hpp"

namespace softgpu {

class Graph;

struct EmptyContent {};
struct ChildContent {
  std::shared_ptr<Graph> graph;
};
struct RecordContent {
  std::shared_ptr<Event> event;
};
struct WaitContent {
  std::shared_ptr<Event> event;
};
struct ValueContent {
  std::vector<CUstreamBatchMemOpParams> parameters;
};

/// Memory that a graph allocates: it lives as long as the graph or an executable graph of it, at
/// one address, so that nodes can name it.
struct GraphMemory {
  uint64_t base = 0;
  size_t bytes = 0;
  ~GraphMemory();
};

/// Bytes that graphs hold.
struct GraphMemoryUse {
  std::atomic<uint64_t> used{0}, high{0};
};
GraphMemoryUse& graph_memory();

struct AllocContent {
  CUDA_MEM_ALLOC_NODE_PARAMS parameters{};
  std::shared_ptr<GraphMemory> memory;
};
struct FreeContent {
  uint64_t base = 0;
};

/// A value that a graph's launches decide by. It lives as long as its graph, or what was made of
/// it.
struct Condition {
  CUgraphConditionalHandle handle = 0;
  unsigned value = 0;     ///< what a launch begins with
  bool assigned = false;  ///< whether it does; else it is what the last one left
  bool used = false;      ///< by a node: there may be one
  ~Condition();
};

struct ConditionalContent {
  std::shared_ptr<Condition> condition;
  CUgraphConditionalNodeType type = CU_GRAPH_COND_TYPE_IF;
  std::vector<std::shared_ptr<Graph>> bodies;
  std::vector<CUgraph> handles;  ///< of the bodies, as the program sees them
};

using NodeContent = std::variant<KernelOperation, CopyOperation, MemsetOperation, HostOperation,
                                 EmptyContent, ChildContent, RecordContent, WaitContent,
                                 ValueContent, AllocContent, FreeContent, ConditionalContent>;

struct GraphNode {
  CUgraphNode handle = nullptr;
  Graph* graph = nullptr;
  NodeContent content;
  std::vector<GraphNode*> dependencies;
  std::vector<GraphNode*> dependents;
  CUgraphNode original = nullptr;         ///< in a clone: the node that it was made from
  std::vector<void*> parameter_pointers;  ///< what cuGraphKernelNodeGetParams hands out
  std::map<CUkernelNodeAttrID, CUkernelNodeAttrValue> attributes;  ///< that the program set

  CUgraphNodeType type() const;
};

/// Guarded by capture_mutex(), like its nodes.
class Graph : public std::enable_shared_from_this<Graph> {
 public:
  ~Graph();
  GraphNode* add(NodeContent content, std::vector<GraphNode*> dependencies);
  void remove(GraphNode* node);
  /// False if there is such an edge already.
  static bool connect(GraphNode* from, GraphNode* to);
  static bool disconnect(GraphNode* from, GraphNode* to);
  std::shared_ptr<Graph> clone() const;
  /// CUDA copies no graphs with conditional nodes, whose bodies belong to them.
  bool can_be_copied() const;
  /// Every node after those it waits for; empty where there is a cycle (and nodes).
  std::vector<GraphNode*> ordered() const;

  CUgraph handle = nullptr;
  bool is_child = false;
  std::vector<std::shared_ptr<GraphNode>> nodes;
  std::vector<std::shared_ptr<void>> user_objects;
  std::vector<std::shared_ptr<Condition>> conditions;
};

HandleTable<Graph, CUgraph, 4>& graphs();
HandleTable<GraphNode, CUgraphNode, 5>& graph_nodes();

}  // namespace softgpu
