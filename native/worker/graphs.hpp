// Graphs, the nodes in them, what is made of them, and what they keep alive.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "worker/host_calls.hpp"

namespace outboard::worker {

struct Context;
struct DriverEvent;
struct Event;
struct Record;
class Worker;

/// Memory that a graph allocates: there from the node's creation on, at one address, as long as the
/// graph or an executable graph of it lives. For the driver its nodes are empty ones, since it must
/// come from the session's windows and count against the share.
struct GraphMemory {
  GraphMemory(Worker& owner, std::shared_ptr<Context> of, CUdeviceptr place)
      : worker(owner), context(std::move(of)), address(place) {}
  ~GraphMemory();
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;
  Worker& worker;
  std::shared_ptr<Context> context;
  CUdeviceptr address;
};

/// What a graph keeps alive, and so does whatever is made of it.
struct GraphHoldings {
  struct UserObject {
    std::shared_ptr<ClientObject> object;
    uint32_t count = 0;
  };
  std::vector<std::shared_ptr<ClientObject>> functions;  ///< of host nodes
  std::vector<UserObject> objects;
  std::vector<std::shared_ptr<GraphMemory>> memory;
  /// Events that nodes record or wait for, by their driver's handle.
  std::map<CUevent, std::pair<std::shared_ptr<DriverEvent>, std::weak_ptr<Event>>> events;

  void add(const GraphHoldings& other);
};

struct Graph {
  std::shared_ptr<Context> context;
  CUgraph handle = nullptr;
  uint64_t id = 0;
  bool inside = false;                 ///< part of a node: the driver destroys it with that
  std::unordered_set<uint64_t> nodes;  ///< those that have names
  GraphHoldings holdings;
};

struct Node {
  uint64_t id = 0;
  CUgraphNode handle = nullptr;
  std::weak_ptr<Graph> graph;
  /// Of a memory node, which is an empty one for the driver: what it stands for.
  CUgraphNodeType stands_for = CU_GRAPH_NODE_TYPE_EMPTY;
  CUgraphNodeParams memory = {};
  std::vector<uint64_t> graphs;  ///< inside it

  bool is_memory() const { return stands_for != CU_GRAPH_NODE_TYPE_EMPTY; }
};

struct ExecutableGraph {
  std::shared_ptr<Context> context;
  CUgraphExec handle = nullptr;
  GraphHoldings holdings;
  std::vector<std::weak_ptr<Event>> records;  ///< events that a launch records
  std::vector<std::weak_ptr<Event>> waits;    ///< and those that it waits for
  uint64_t queued = 0;                        ///< launches that are not in the driver yet
};

/// One launch of an executable graph, from its arrival on.
struct GraphRun {
  std::shared_ptr<ExecutableGraph> executable;
  std::vector<std::shared_ptr<Record>> records;
  std::vector<std::shared_ptr<Record>> waits;

  GraphRun() = default;
  ~GraphRun() { settle(); }
  GraphRun(const GraphRun&) = delete;
  GraphRun& operator=(const GraphRun&) = delete;
  bool may_issue() const;
  /// It is in the driver, or will never be.
  void settle();
};

/// Notes a launch that has come; null where there is no such executable graph.
std::shared_ptr<GraphRun> begin_run(Worker& worker, uint64_t executable);

/// Nodes and inside graphs, which the worker names.
class GraphNames {
 public:
  Node& name(const std::shared_ptr<Graph>& graph, CUgraphNode handle);
  Node* find(uint64_t id) const;
  uint64_t id_of(CUgraphNode handle) const;
  void forget_node(uint64_t id);
  /// A graph inside a node of `outer`.
  std::shared_ptr<Graph> add_inside(const Graph& outer, Node& node, CUgraph handle);
  std::shared_ptr<Graph> inside(uint64_t id) const;
  /// Forgets the names of a graph's nodes and of all graphs inside them.
  void forget(const Graph& graph);
  void forget_context(const Context& context);

 private:
  static constexpr uint64_t worker_made = uint64_t{1} << 63;
  uint64_t last_ = worker_made;
  std::unordered_map<uint64_t, std::unique_ptr<Node>> nodes_;
  std::unordered_map<CUgraphNode, uint64_t> by_handle_;
  std::unordered_map<uint64_t, std::shared_ptr<Graph>> inside_;
};

/// Gathers what the graph and all graphs inside it hold.
GraphHoldings gather(Worker& worker, const Graph& graph);
/// The driver's nodes of a graph, in its order.
CUresult nodes_of(const Worker& worker, CUgraph graph, std::vector<CUgraphNode>* nodes);
/// Memory nodes of `from` are such in its copy `to` as well.
void copy_memory_nodes(Worker& worker, const std::shared_ptr<Graph>& from,
                       const std::shared_ptr<Graph>& to);
/// Finds which events launches of the executable record and wait for, among those that it holds.
/// The ids of the recorded ones are what the client needs to know.
std::vector<uint64_t> recorded_ids(const ExecutableGraph& executable);
std::vector<uint64_t> read_events(Worker& worker, ExecutableGraph& executable, CUgraph graph);

}  // namespace outboard::worker
