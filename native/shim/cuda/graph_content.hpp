// A node's parameters, between what programs write and what travels.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "shim/cuda/graph_copies.hpp"
#include "shim/cuda/graphs.hpp"

namespace outboard::shim {

/// What a node is, as it travels.
struct NodeContent {
  CUgraphNodeParams params{};
  std::vector<std::byte> arguments;
  std::shared_ptr<HostCopy> copy;
  uint64_t function = 0;

  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(&params, 1)); }
  bool has_host_parts() const { return copy != nullptr || function != 0; }
};

/// Reads what the program gave. A host function is registered, host memory gets a shadow.
CUresult read_content(Context* context, const CUgraphNodeParams& given, NodeContent* out);

/// What the server says of a node, in the program's terms; what it points at belongs to the node.
CUresult write_content(Node* node, std::span<const std::byte> content,
                       std::span<const std::byte> arguments, CUgraphNodeParams* out);

// The forms of parameters that are older than CUgraphNodeParams, as such.
CUgraphNodeParams kernel_params(const CUDA_KERNEL_NODE_PARAMS& given);
CUgraphNodeParams kernel_params(const CUDA_KERNEL_NODE_PARAMS_v1& given);
CUgraphNodeParams copy_params(const CUDA_MEMCPY3D& given);
CUgraphNodeParams fill_params(const CUDA_MEMSET_NODE_PARAMS& given);
CUgraphNodeParams host_params(const CUDA_HOST_NODE_PARAMS& given);
CUgraphNodeParams child_params(CUgraph given);
CUgraphNodeParams event_params(CUgraphNodeType type, CUevent given);
CUgraphNodeParams operations_params(const CUDA_BATCH_MEM_OP_NODE_PARAMS& given);

/// Asks the server for a node's parameters.
CUresult read_params(Node* node, CUgraphNodeParams* out);

}  // namespace outboard::shim
