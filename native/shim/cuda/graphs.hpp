// Graphs, their nodes and executable graphs as the program's handles name them.
// SPDX-License-Identifier: Apache-2.0
//
// The graph itself is the server's. Here is what its driver cannot have: the program's functions
// and host memory, and the handles that the program was given.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "client/slab.hpp"

namespace outboard::client {
class Server;
}

namespace outboard::shim {

struct Context;
struct Device;
struct LaunchPlan;
struct Node;

struct Graph {
  client::SlotHead head;
  Context* context = nullptr;
  uint64_t inside = 0;  ///< the server's name of a graph that is part of a node; else 0
  /// Whether host functions or host memory are in it, or may be.
  bool has_host_parts = false;
  std::vector<std::shared_ptr<void>>
      keeps;                 ///< what must live as long as it, or what is made of it
  std::vector<Node*> nodes;  ///< those that the program was told of

  uint64_t id() const { return inside != 0 ? inside : head.id(); }
};

struct Node {
  client::SlotHead head;
  Graph* graph = nullptr;
  uint64_t id = 0;             ///< the server's
  std::vector<Graph*> graphs;  ///< inside it
  // What the parameters that were asked for last point at.
  std::vector<std::byte> arguments;
  std::vector<void*> pointers;
  std::vector<CUgraph> handles;
};

struct GraphExec {
  client::SlotHead head;
  Context* context = nullptr;
  unsigned long long flags = 0;
  std::vector<uint64_t> events;  ///< that a launch records
  std::vector<std::shared_ptr<void>> keeps;
  std::shared_ptr<const LaunchPlan> plan;  ///< null: nothing of it is here
  /// The last launch, so that one on another stream comes after it where host memory is involved.
  uint64_t last_stream = 0;
  uint64_t last_count = 0;
};

extern client::Slab<Graph, 1u << 17> graphs;
extern client::Slab<Node, 1u << 20> nodes;
extern client::Slab<GraphExec, 1u << 17> graph_execs;

inline CUgraph handle(Graph* object) { return reinterpret_cast<CUgraph>(object); }
inline CUgraphNode handle(Node* object) { return reinterpret_cast<CUgraphNode>(object); }
inline CUgraphExec handle(GraphExec* object) { return reinterpret_cast<CUgraphExec>(object); }
inline Graph* find(CUgraph value) { return graphs.find(value); }
inline Node* find(CUgraphNode value) { return nodes.find(value); }
inline GraphExec* find(CUgraphExec value) { return graph_execs.find(value); }

/// Memory that a graph allocates is the program's as long as the graph, or what is made of it,
/// lives.
void keep_memory(Graph* graph, Device* device, uint64_t address, size_t bytes);

/// The program's handle of a server's node; the same for the same node. Null: no room.
Node* name_node(Graph* graph, uint64_t id);
/// The same for a graph inside a node.
Graph* name_inside(Node* node, uint64_t id);
/// A node, or a graph with all its nodes, is gone.
void forget(Node* node);
void forget(Graph* graph);
void forget(GraphExec* executable);
/// Everything of a context.
void forget_graphs(const Context* context);

struct Description {
  std::vector<uint64_t> nodes;
  std::vector<uint32_t> types, from, to;  ///< edges by places in `nodes`
  std::vector<CUgraphEdgeData> edges;
};
/// Asks the server what is in a graph.
CUresult describe(Graph* graph, Description* out);

/// Ids of the nodes that handles name, all of one graph where `graph` is not null.
CUresult node_ids(const Graph* graph, const CUgraphNode* handles, size_t count,
                  std::vector<uint64_t>* out);

}  // namespace outboard::shim
