// Nodes of graphs as the wire describes them and as the driver takes them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "worker/graphs.hpp"

namespace outboard::worker {

/// The nodes that ids name, each once, and the data of the edges from them; no data is plain edges.
CUresult read_dependencies(const Worker& worker, std::span<const uint64_t> ids,
                           std::span<const std::byte> data, std::vector<CUgraphNode>* nodes,
                           std::vector<CUgraphEdgeData>* edges);

/// Takes the memory that an allocation node describes; the graph holds it, `params` gets its
/// address.
CUresult allocate_for(Worker& worker, Graph& graph, CUgraphNodeParams* params);

/// A node's parameters for the driver, and what they point at. Not to be moved: it points at
/// itself.
class NodeParams {
 public:
  NodeParams() = default;
  NodeParams(const NodeParams&) = delete;
  NodeParams& operator=(const NodeParams&) = delete;

  /// Replaces ids by handles and checks what can be checked. What the node has to keep alive is
  /// added to `holdings`.
  CUresult read(Worker& worker, const Context& context, std::span<const std::byte> content,
                std::span<const std::byte> arguments, GraphHoldings* holdings);

  CUgraphNodeParams params = {};

 private:
  CUresult read_kernel(Worker& worker, const Context& context,
                       std::span<const std::byte> arguments);
  CUresult read_copy(const Worker& worker, const Context& context);
  CUresult read_fill(const Worker& worker, const Context& context);
  CUresult read_event(Worker& worker, CUevent* event, GraphHoldings* holdings);
  CUresult read_operations(const Worker& worker, const Context& context,
                           std::span<const std::byte> arguments);

  std::vector<std::byte> arguments_;
  std::vector<void*> parameters_;  ///< places in `arguments_`
  std::vector<CUstreamBatchMemOpParams> operations_;
};

/// Whether an attribute of launches holds plain values: no handle, nothing that the driver writes.
bool is_plain_attribute(CUlaunchAttributeID id);

/// Whether every operation is of a kind that is known, on memory of the session.
bool are_valid_operations(const Worker& worker, std::span<const CUstreamBatchMemOpParams> list);

}  // namespace outboard::worker
