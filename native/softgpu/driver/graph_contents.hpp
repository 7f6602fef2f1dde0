// Graph nodes as programs describe them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "context.hpp"
#include "graph.hpp"

namespace softgpu {

CUresult kernel_content(Context& context, const CUDA_KERNEL_NODE_PARAMS& p, NodeContent* out);
CUresult copy_content(const CUDA_MEMCPY3D& p, NodeContent* out);
CUresult memset_content(const CUDA_MEMSET_NODE_PARAMS& p, NodeContent* out);
CUresult host_content(const CUDA_HOST_NODE_PARAMS& p, NodeContent* out);
/// A copy of the graph, which belongs to the node.
CUresult child_content(CUgraph graph, NodeContent* out);
CUresult record_content(CUevent event, NodeContent* out);
CUresult wait_content(CUevent event, NodeContent* out);
CUresult value_content(Context& context, const CUDA_BATCH_MEM_OP_NODE_PARAMS& p, NodeContent* out);
CUresult alloc_content(CUDA_MEM_ALLOC_NODE_PARAMS* p, NodeContent* out);
/// `p` is written the handles of the bodies.
CUresult conditional_content(CUDA_CONDITIONAL_NODE_PARAMS* p, NodeContent* out);
/// Any kind of node; `p` is written to where the node has something to tell (an address).
CUresult any_content(Context& context, CUgraphNodeParams* p, NodeContent* out);

/// The parameters of a kernel node. What they point to belongs to the node.
CUDA_KERNEL_NODE_PARAMS describe(GraphNode& node, const KernelOperation& kernel);

}  // namespace softgpu
