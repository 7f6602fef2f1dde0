// Adding nodes to graphs, reading and changing their parameters.
// SPDX-License-Identifier: Apache-2.0
#include "worker/graph_nodes.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

// An id stands where the driver has a handle or a pointer.
template <typename Handle>
uint64_t id_in(Handle value) {
  return reinterpret_cast<uint64_t>(value);
}
template <typename Handle>
Handle as_handle(uint64_t id) {
  return reinterpret_cast<Handle>(id);
}

// Whether a box of rows and slices lies in one allocation of the session.
bool contains_box(const Worker& worker, CUdeviceptr base, const CUDA_MEMCPY3D& copy, size_t x,
                  size_t y, size_t z, size_t pitch, size_t rows) {
  if (copy.WidthInBytes == 0 || copy.Height == 0 || copy.Depth == 0) return true;
  const size_t row = pitch != 0 ? pitch : x + copy.WidthInBytes;
  const size_t slice_rows = rows != 0 ? rows : y + copy.Height;
  uint64_t last_row = 0, first_row = 0, offset = 0, bytes = 0;
  if (__builtin_mul_overflow(z, slice_rows, &first_row) ||
      __builtin_add_overflow(first_row, y, &first_row) ||
      __builtin_mul_overflow(copy.Depth - 1, slice_rows, &last_row) ||
      __builtin_add_overflow(last_row, copy.Height - 1, &last_row) ||
      __builtin_mul_overflow(first_row, row, &offset) ||
      __builtin_add_overflow(offset, x, &offset) || __builtin_add_overflow(base, offset, &base) ||
      __builtin_mul_overflow(last_row, row, &bytes) ||
      __builtin_add_overflow(bytes, copy.WidthInBytes, &bytes)) {
    return false;
  }
  return worker.memory.contains(base, bytes);
}

}  // namespace

CUresult read_dependencies(const Worker& worker, std::span<const uint64_t> ids,
                           std::span<const std::byte> data, std::vector<CUgraphNode>* nodes,
                           std::vector<CUgraphEdgeData>* edges) {
  for (const uint64_t id : ids) {
    const Node* node = worker.graph_names.find(id);
    if (!node) return CUDA_ERROR_INVALID_VALUE;
    nodes->push_back(node->handle);
  }
  if (data.empty()) return CUDA_SUCCESS;
  if (data.size() != ids.size() * sizeof(CUgraphEdgeData)) return CUDA_ERROR_INVALID_VALUE;
  edges->resize(ids.size());
  std::memcpy(edges->data(), data.data(), data.size());
  return CUDA_SUCCESS;
}

CUresult allocate_for(Worker& worker, Graph& graph, CUgraphNodeParams* params) {
  const auto device = static_cast<unsigned>(params->alloc.poolProps.location.id);
  if (params->alloc.poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
      device >= worker.devices.size()) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  CUdeviceptr address = 0;
  const CUresult result =
      worker.memory.allocate(*graph.context, device, params->alloc.bytesize, &address);
  if (result != CUDA_SUCCESS) return result;
  graph.holdings.memory.push_back(std::make_shared<GraphMemory>(worker, graph.context, address));
  params->alloc.dptr = address;
  return CUDA_SUCCESS;
}

bool are_valid_operations(const Worker& worker, std::span<const CUstreamBatchMemOpParams> list) {
  return std::all_of(list.begin(), list.end(), [&](const CUstreamBatchMemOpParams& one) {
    switch (one.operation) {
      case CU_STREAM_MEM_OP_WAIT_VALUE_32:
        return worker.memory.contains(one.waitValue.address, 4);
      case CU_STREAM_MEM_OP_WAIT_VALUE_64:
        return worker.memory.contains(one.waitValue.address, 8);
      case CU_STREAM_MEM_OP_WRITE_VALUE_32:
        return worker.memory.contains(one.writeValue.address, 4);
      case CU_STREAM_MEM_OP_WRITE_VALUE_64:
        return worker.memory.contains(one.writeValue.address, 8);
      case CU_STREAM_MEM_OP_BARRIER:
      case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
        return true;
      default:
        return false;
    }
  });
}

// ---- from the wire ------------------------------------------------------------------------------

CUresult NodeParams::read_kernel(Worker& worker, const Context& context,
                                 std::span<const std::byte> arguments) {
  auto& kernel = params.kernel;
  const Function* function = worker.tables.functions.find(id_in(kernel.func));
  if (!function) return CUDA_ERROR_INVALID_VALUE;
  if (arguments.size() != function->params_bytes) return CUDA_ERROR_INVALID_VALUE;
  kernel.func = function->kernel ? nullptr : function->handle;
  kernel.kern = function->kernel;
  kernel.ctx = context.handle;
  // One pointer a parameter, not a buffer of all: to a node that got a buffer, driver 580 gives no
  // launch attribute afterwards (CUDA_ERROR_INVALID_VALUE).
  arguments_.assign(arguments.begin(), arguments.end());
  parameters_.clear();
  for (size_t i = 0; i + 1 < function->layout.size(); i += 2) {
    parameters_.push_back(arguments_.data() + function->layout[i]);
  }
  kernel.kernelParams = parameters_.empty() ? nullptr : parameters_.data();
  kernel.extra = nullptr;
  return CUDA_SUCCESS;
}

CUresult NodeParams::read_copy(const Worker& worker, const Context& context) {
  CUDA_MEMCPY3D& copy = params.memcpy.copyParams;
  copy.srcHost = nullptr;
  copy.dstHost = nullptr;
  copy.reserved0 = copy.reserved1 = nullptr;
  params.memcpy.copyCtx = context.handle;
  // Host memory is the client's: it makes such copies ones from and to memory of the session, by
  // addresses. What of that is shared with the client is host memory again for the driver.
  const auto check = [&](CUmemorytype* type, CUarray* array, CUdeviceptr* address, auto* host,
                         bool inside) {
    if (*type != CU_MEMORYTYPE_ARRAY) {
      *array = nullptr;
      const bool on_device = *type == CU_MEMORYTYPE_DEVICE || *type == CU_MEMORYTYPE_UNIFIED;
      if (!on_device || !inside) {
        return on_device ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_SUPPORTED;
      }
      const Allocation* memory = worker.memory.find(*address, 1);
      if (!memory || !memory->host) return CUDA_SUCCESS;
      *type = CU_MEMORYTYPE_HOST;
      *host = reinterpret_cast<void*>(std::exchange(*address, 0));
      return CUDA_SUCCESS;
    }
    const uint64_t id = id_in(*array);
    return id == 0 ? CUDA_ERROR_INVALID_VALUE : worker.find(id, array);
  };
  const CUresult result = check(&copy.srcMemoryType, &copy.srcArray, &copy.srcDevice, &copy.srcHost,
                                contains_box(worker, copy.srcDevice, copy, copy.srcXInBytes,
                                             copy.srcY, copy.srcZ, copy.srcPitch, copy.srcHeight));
  if (result != CUDA_SUCCESS) return result;
  return check(&copy.dstMemoryType, &copy.dstArray, &copy.dstDevice, &copy.dstHost,
               contains_box(worker, copy.dstDevice, copy, copy.dstXInBytes, copy.dstY, copy.dstZ,
                            copy.dstPitch, copy.dstHeight));
}

CUresult NodeParams::read_fill(const Worker& worker, const Context& context) {
  auto& fill = params.memset;
  fill.ctx = context.handle;
  if (fill.elementSize != 1 && fill.elementSize != 2 && fill.elementSize != 4) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  uint64_t width = 0, bytes = 0;
  if (fill.width == 0 || fill.height == 0 ||
      __builtin_mul_overflow(fill.width, fill.elementSize, &width) ||
      __builtin_mul_overflow(fill.height - 1, fill.pitch, &bytes) ||
      __builtin_add_overflow(bytes, width, &bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  return worker.memory.contains(fill.dst, bytes) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult NodeParams::read_event(Worker& worker, CUevent* event, GraphHoldings* holdings) {
  const auto found = worker.tables.events.share(id_in(*event));
  if (!found) return CUDA_ERROR_INVALID_VALUE;
  const auto pinned = pin(worker, *found);
  if (!pinned) return CUDA_ERROR_OUT_OF_MEMORY;
  *event = pinned->handle;
  holdings->events.insert_or_assign(pinned->handle, std::pair(pinned, std::weak_ptr(found)));
  return CUDA_SUCCESS;
}

CUresult NodeParams::read_operations(const Worker& worker, const Context& context,
                                     std::span<const std::byte> arguments) {
  const size_t count = arguments.size() / sizeof(CUstreamBatchMemOpParams);
  if (count == 0 || arguments.size() % sizeof(CUstreamBatchMemOpParams) != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  operations_.resize(count);
  std::memcpy(operations_.data(), arguments.data(), arguments.size());
  if (!are_valid_operations(worker, operations_)) return CUDA_ERROR_INVALID_VALUE;
  params.memOp.ctx = context.handle;
  params.memOp.count = static_cast<unsigned>(count);
  params.memOp.paramArray = operations_.data();
  return CUDA_SUCCESS;
}

CUresult NodeParams::read(Worker& worker, const Context& context,
                          std::span<const std::byte> content, std::span<const std::byte> arguments,
                          GraphHoldings* holdings) {
  if (content.size() != sizeof params) return CUDA_ERROR_INVALID_VALUE;
  std::memcpy(&params, content.data(), sizeof params);
  switch (params.type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      return read_kernel(worker, context, arguments);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      return read_copy(worker, context);
    case CU_GRAPH_NODE_TYPE_MEMSET:
      return read_fill(worker, context);
    case CU_GRAPH_NODE_TYPE_HOST: {
      auto function =
          std::make_shared<ClientObject>(worker.host_calls, &context, id_in(params.host.userData));
      params.host.fn = ClientObject::run;
      params.host.userData = function.get();
      holdings->functions.push_back(std::move(function));
      return CUDA_SUCCESS;
    }
    case CU_GRAPH_NODE_TYPE_GRAPH: {
      const auto child = worker.graph(id_in(params.graph.graph));
      if (!child) return CUDA_ERROR_INVALID_VALUE;
      params.graph.graph = child->handle;
      return CUDA_SUCCESS;
    }
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
      return read_event(worker, &params.eventWait.event, holdings);
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      return read_event(worker, &params.eventRecord.event, holdings);
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
      return read_operations(worker, context, arguments);
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
      params.conditional.ctx = context.handle;
      params.conditional.phGraph_out = nullptr;
      return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_EMPTY:
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

namespace {

CUresult read_params(Worker& worker, const Graph& graph, std::span<const std::byte> content,
                     std::span<const std::byte> arguments, NodeParams* params,
                     GraphHoldings* holdings) {
  // Nodes belong to the context that is current when they are added, if there is one.
  const Context* context = worker.current() ? worker.current() : graph.context.get();
  worker.make_current(*context);
  return params->read(worker, *context, content, arguments, holdings);
}

// A memory node becomes an empty one, which stands for it.
CUresult add_memory_node(Worker& worker, Graph& graph, NodeParams& params,
                         const std::vector<CUgraphNode>& after,
                         const std::vector<CUgraphEdgeData>& edges, CUgraphNode* out) {
  if (params.params.type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
    const CUresult result = allocate_for(worker, graph, &params.params);
    if (result != CUDA_SUCCESS) return result;
  }
  if (!edges.empty()) return CUDA_ERROR_NOT_SUPPORTED;
  return worker.driver().cuGraphAddEmptyNode(out, graph.handle, after.data(), after.size());
}

CUresult add_node(const Driver& driver, const Graph& graph, NodeParams& params,
                  const std::vector<CUgraphNode>& after, const std::vector<CUgraphEdgeData>& edges,
                  CUgraphNode* out) {
  return edges.empty()
             ? driver.cuGraphAddNode(out, graph.handle, after.data(), after.size(), &params.params)
             : driver.cuGraphAddNode_v2(out, graph.handle, after.data(), edges.data(), after.size(),
                                        &params.params);
}

// The graphs that the driver made for a node have names from now on.
void name_inside(Worker& worker, const Graph& graph, Node& node, const NodeParams& params,
                 uint64_t child_id) {
  if (params.params.type == CU_GRAPH_NODE_TYPE_CONDITIONAL &&
      params.params.conditional.phGraph_out) {
    for (unsigned i = 0; i < params.params.conditional.size; ++i) {
      worker.graph_names.add_inside(graph, node, params.params.conditional.phGraph_out[i]);
    }
  }
  CUgraph child = nullptr;
  if (params.params.type == CU_GRAPH_NODE_TYPE_GRAPH &&
      worker.driver().cuGraphChildGraphNodeGetGraph(node.handle, &child) == CUDA_SUCCESS) {
    const auto inside = worker.graph_names.add_inside(graph, node, child);
    if (const auto original = worker.graph(child_id)) {
      inside->holdings = gather(worker, *original);
      copy_memory_nodes(worker, original, inside);
    }
  }
}

uint64_t child_id_of(std::span<const std::byte> content) {
  CUgraphNodeParams params = {};
  if (content.size() != sizeof params) return 0;
  std::memcpy(&params, content.data(), sizeof params);
  return params.type == CU_GRAPH_NODE_TYPE_GRAPH ? id_in(params.graph.graph) : 0;
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::GraphAddNode& command,
                 wire::command::GraphAddNode::Reply& reply) {
  static thread_local std::vector<uint64_t> graphs;
  const auto graph = worker.graph(command.graph);
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  std::vector<CUgraphNode> after;
  std::vector<CUgraphEdgeData> edges;
  CUresult result = read_dependencies(worker, command.dependencies, command.edges, &after, &edges);
  NodeParams params;
  GraphHoldings holdings;
  if (result == CUDA_SUCCESS) {
    result = read_params(worker, *graph, command.content, command.arguments, &params, &holdings);
  }
  if (result != CUDA_SUCCESS) return result;
  const CUgraphNodeType type = params.params.type;
  const bool memory = type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || type == CU_GRAPH_NODE_TYPE_MEM_FREE;
  CUgraphNode handle = nullptr;
  result = memory ? add_memory_node(worker, *graph, params, after, edges, &handle)
                  : add_node(worker.driver(), *graph, params, after, edges, &handle);
  if (result != CUDA_SUCCESS) return result;
  graph->holdings.add(holdings);
  Node& node = worker.graph_names.name(graph, handle);
  if (memory) {
    node.stands_for = type;
    node.memory = params.params;
    if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) reply.address = params.params.alloc.dptr;
  }
  name_inside(worker, *graph, node, params, child_id_of(command.content));
  graphs = node.graphs;
  reply.graphs = graphs;
  reply.node = node.id;
  return CUDA_SUCCESS;
}

CUresult execute(Worker& worker, const wire::command::NodeSetParams& command,
                 wire::command::NodeSetParams::Reply&) {
  const Node* node = worker.graph_names.find(command.node);
  const auto graph = node ? node->graph.lock() : nullptr;
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  NodeParams params;
  GraphHoldings holdings;
  CUresult result =
      read_params(worker, *graph, command.content, command.arguments, &params, &holdings);
  if (result == CUDA_SUCCESS && node->is_memory()) result = CUDA_ERROR_INVALID_VALUE;
  if (result != CUDA_SUCCESS) return result;
  result = worker.driver().cuGraphNodeSetParams(node->handle, &params.params);
  if (result == CUDA_SUCCESS) graph->holdings.add(holdings);
  return result;
}

namespace {

// An event node of an executable graph names another event now.
void change_events(ExecutableGraph& executable, const NodeParams& params) {
  const bool record = params.params.type == CU_GRAPH_NODE_TYPE_EVENT_RECORD;
  if (!record && params.params.type != CU_GRAPH_NODE_TYPE_WAIT_EVENT) return;
  const CUevent handle = record ? params.params.eventRecord.event : params.params.eventWait.event;
  const auto held = executable.holdings.events.find(handle);
  if (held == executable.holdings.events.end()) return;
  (record ? executable.records : executable.waits).push_back(held->second.second);
}

}  // namespace

void execute(Worker& worker, const Request& request,
             const wire::command::GraphExecutableSetParams& command) {
  const auto executable = worker.tables.executables.share(command.executable);
  const Node* node = worker.graph_names.find(command.node);
  const auto graph = node ? node->graph.lock() : nullptr;
  if (!executable || !graph) return worker.answer(request, CUDA_ERROR_INVALID_HANDLE);
  const auto params = std::make_shared<NodeParams>();
  const auto holdings = std::make_shared<GraphHoldings>();
  if (const auto child = worker.graph(child_id_of(command.content))) {
    holdings->add(gather(worker, *child));
  }
  CUresult result =
      read_params(worker, *graph, command.content, command.arguments, params.get(), holdings.get());
  if (result == CUDA_SUCCESS && node->is_memory()) result = CUDA_ERROR_INVALID_VALUE;
  if (result != CUDA_SUCCESS) return worker.answer(request, result);
  worker.completion.when(
      [executable] { return executable->queued == 0; },
      [&worker, request, executable, params, holdings, handle = node->handle](CUresult) {
        if (!executable->context->alive) {
          return worker.answer(request, CUDA_ERROR_CONTEXT_IS_DESTROYED);
        }
        worker.make_current(*executable->context);
        const Driver& driver = worker.driver();
        const CUresult changed =
            params->params.type == CU_GRAPH_NODE_TYPE_GRAPH
                ? driver.cuGraphExecChildGraphNodeSetParams(executable->handle, handle,
                                                            params->params.graph.graph)
                : driver.cuGraphExecNodeSetParams(executable->handle, handle, &params->params);
        wire::command::GraphExecutableSetParams::Reply reply;
        std::vector<uint64_t> events;
        if (changed == CUDA_SUCCESS) {
          executable->holdings.add(*holdings);
          change_events(*executable, *params);
          events = recorded_ids(*executable);
        }
        reply.events = events;
        worker.reply(request, changed, reply);
      });
}

// ---- to the wire --------------------------------------------------------------------------------

namespace {

struct Description {
  CUgraphNodeParams params = {};
  std::vector<std::byte> arguments;
};

uint64_t id_of_function(const Worker& worker, const CUDA_KERNEL_NODE_PARAMS& kernel,
                        const Function** out) {
  uint64_t id = 0;
  worker.tables.functions.each_named([&](uint64_t name, const Function& function) {
    const bool same = kernel.func ? function.handle == kernel.func ||
                                        reinterpret_cast<CUfunction>(function.kernel) == kernel.func
                                  : function.kernel == kernel.kern;
    if (!same) return;
    id = name;
    *out = &function;
  });
  return id;
}

// The kernel's parameters as they lie in memory.
void read_arguments(const Function& function, const CUDA_KERNEL_NODE_PARAMS& kernel,
                    std::vector<std::byte>& out) {
  out.assign(function.params_bytes, std::byte{0});
  if (kernel.kernelParams) {
    for (size_t i = 0; i + 1 < function.layout.size(); i += 2) {
      std::memcpy(out.data() + function.layout[i], kernel.kernelParams[i / 2],
                  function.layout[i + 1]);
    }
    return;
  }
  for (void** extra = kernel.extra; extra && *extra != CU_LAUNCH_PARAM_END; extra += 2) {
    if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) std::memcpy(out.data(), extra[1], out.size());
  }
}

CUresult describe_kernel(const Worker& worker, CUgraphNode node, Description& out) {
  CUDA_KERNEL_NODE_PARAMS kernel = {};
  const CUresult result = worker.driver().cuGraphKernelNodeGetParams_v2(node, &kernel);
  if (result != CUDA_SUCCESS) return result;
  const Function* function = nullptr;
  const uint64_t id = id_of_function(worker, kernel, &function);
  if (!function) return CUDA_ERROR_INVALID_VALUE;  // its module was unloaded
  out.params.kernel.func = as_handle<CUfunction>(id);
  out.params.kernel.gridDimX = kernel.gridDimX;
  out.params.kernel.gridDimY = kernel.gridDimY;
  out.params.kernel.gridDimZ = kernel.gridDimZ;
  out.params.kernel.blockDimX = kernel.blockDimX;
  out.params.kernel.blockDimY = kernel.blockDimY;
  out.params.kernel.blockDimZ = kernel.blockDimZ;
  out.params.kernel.sharedMemBytes = kernel.sharedMemBytes;
  read_arguments(*function, kernel, out.arguments);
  return CUDA_SUCCESS;
}

uint64_t id_of_event(const Worker& worker, const Graph& graph, CUevent handle) {
  const auto held = graph.holdings.events.find(handle);
  if (held == graph.holdings.events.end()) return 0;
  const auto event = held->second.second.lock();
  return event && worker.tables.events.find(event->id) ? event->id : 0;
}

CUresult describe_event(const Worker& worker, const Graph& graph, CUgraphNode node,
                        Description& out) {
  const bool record = out.params.type == CU_GRAPH_NODE_TYPE_EVENT_RECORD;
  CUevent event = nullptr;
  const CUresult result = record ? worker.driver().cuGraphEventRecordNodeGetEvent(node, &event)
                                 : worker.driver().cuGraphEventWaitNodeGetEvent(node, &event);
  const auto id = as_handle<CUevent>(id_of_event(worker, graph, event));
  (record ? out.params.eventRecord.event : out.params.eventWait.event) = id;
  return result;
}

CUresult describe_fill(const Driver& driver, CUgraphNode node, Description& out) {
  CUDA_MEMSET_NODE_PARAMS fill = {};
  const CUresult result = driver.cuGraphMemsetNodeGetParams(node, &fill);
  out.params.memset.dst = fill.dst;
  out.params.memset.pitch = fill.pitch;
  out.params.memset.value = fill.value;
  out.params.memset.elementSize = fill.elementSize;
  out.params.memset.width = fill.width;
  out.params.memset.height = fill.height;
  return result;
}

uint64_t id_of_array(const Worker& worker, CUmemorytype type, CUarray handle) {
  uint64_t id = 0;
  if (type != CU_MEMORYTYPE_ARRAY) return id;
  worker.tables.arrays.each_named([&](uint64_t name, const Array& array) {
    if (array.handle == handle) id = name;
  });
  return id;
}

CUresult describe_copy(const Worker& worker, CUgraphNode node, Description& out) {
  CUDA_MEMCPY3D& copy = out.params.memcpy.copyParams;
  const CUresult result = worker.driver().cuGraphMemcpyNodeGetParams(node, &copy);
  copy.srcArray = as_handle<CUarray>(id_of_array(worker, copy.srcMemoryType, copy.srcArray));
  copy.dstArray = as_handle<CUarray>(id_of_array(worker, copy.dstMemoryType, copy.dstArray));
  return result;
}

CUresult describe_operations(const Driver& driver, CUgraphNode node, Description& out) {
  CUDA_BATCH_MEM_OP_NODE_PARAMS operations = {};
  const CUresult result = driver.cuGraphBatchMemOpNodeGetParams(node, &operations);
  if (result != CUDA_SUCCESS || !operations.paramArray) return result;
  const auto bytes = std::as_bytes(std::span(operations.paramArray, operations.count));
  out.arguments.assign(bytes.begin(), bytes.end());
  out.params.memOp.count = operations.count;
  out.params.memOp.flags = operations.flags;
  return result;
}

CUresult describe_inside(Worker& worker, const Graph& graph, Node& node, Description& out) {
  CUgraph child = nullptr;
  const CUresult result = worker.driver().cuGraphChildGraphNodeGetGraph(node.handle, &child);
  if (result != CUDA_SUCCESS) return result;
  if (node.graphs.empty()) worker.graph_names.add_inside(graph, node, child);
  out.params.graph.graph = as_handle<CUgraph>(node.graphs.front());
  return CUDA_SUCCESS;
}

CUresult describe(Worker& worker, const Graph& graph, Node& node, Description& out) {
  const Driver& driver = worker.driver();
  if (node.is_memory()) {
    out.params = node.memory;
    return CUDA_SUCCESS;
  }
  CUresult result = driver.cuGraphNodeGetType(node.handle, &out.params.type);
  if (result != CUDA_SUCCESS) return result;
  switch (out.params.type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
      return describe_kernel(worker, node.handle, out);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
      return describe_copy(worker, node.handle, out);
    case CU_GRAPH_NODE_TYPE_MEMSET:
      return describe_fill(driver, node.handle, out);
    case CU_GRAPH_NODE_TYPE_HOST: {
      CUDA_HOST_NODE_PARAMS host = {};
      result = driver.cuGraphHostNodeGetParams(node.handle, &host);
      if (result != CUDA_SUCCESS || host.fn != ClientObject::run) return result;
      const auto* object = static_cast<const ClientObject*>(host.userData);
      out.params.host.userData = as_handle<void*>(object->object);
      return CUDA_SUCCESS;
    }
    case CU_GRAPH_NODE_TYPE_GRAPH:
      return describe_inside(worker, graph, node, out);
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
      return describe_event(worker, graph, node.handle, out);
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
      return describe_operations(driver, node.handle, out);
    case CU_GRAPH_NODE_TYPE_EMPTY:
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_NOT_SUPPORTED;
  }
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::NodeGetParams& command,
                 wire::command::NodeGetParams::Reply& reply) {
  static thread_local Description description;
  Node* node = worker.graph_names.find(command.node);
  const auto graph = node ? node->graph.lock() : nullptr;
  if (!graph) return CUDA_ERROR_INVALID_HANDLE;
  description = {};
  const CUresult result = describe(worker, *graph, *node, description);
  reply.content = std::as_bytes(std::span(&description.params, 1));
  reply.arguments = description.arguments;
  return result;
}

// ---- attributes, conditions ---------------------------------------------------------------------

CUresult execute(Worker& worker, const wire::command::NodeGetAttribute& command,
                 wire::command::NodeGetAttribute::Reply& reply) {
  static thread_local CUkernelNodeAttrValue value;
  const Node* node = worker.graph_names.find(command.node);
  const auto id = static_cast<CUkernelNodeAttrID>(command.attribute);
  if (!node) return CUDA_ERROR_INVALID_HANDLE;
  if (!is_plain_attribute(id)) return CUDA_ERROR_NOT_SUPPORTED;
  value = {};
  const CUresult result = worker.driver().cuGraphKernelNodeGetAttribute(node->handle, id, &value);
  reply.value = std::as_bytes(std::span(&value, 1));
  return result;
}

CUresult execute(Worker& worker, const wire::command::NodeSetAttribute& command,
                 wire::command::NodeSetAttribute::Reply&) {
  const Node* node = worker.graph_names.find(command.node);
  const auto id = static_cast<CUkernelNodeAttrID>(command.attribute);
  CUkernelNodeAttrValue value = {};
  if (!node) return CUDA_ERROR_INVALID_HANDLE;
  if (command.value.size() != sizeof value) return CUDA_ERROR_INVALID_VALUE;
  if (!is_plain_attribute(id)) return CUDA_ERROR_NOT_SUPPORTED;
  std::memcpy(&value, command.value.data(), sizeof value);
  return worker.driver().cuGraphKernelNodeSetAttribute(node->handle, id, &value);
}

CUresult execute(Worker& worker, const wire::command::NodeCopyAttributes& command,
                 wire::command::NodeCopyAttributes::Reply&) {
  const Node* to = worker.graph_names.find(command.to);
  const Node* from = worker.graph_names.find(command.from);
  if (!to || !from) return CUDA_ERROR_INVALID_HANDLE;
  return worker.driver().cuGraphKernelNodeCopyAttributes(to->handle, from->handle);
}

CUresult execute(Worker& worker, const wire::command::GraphConditionalHandle& command,
                 wire::command::GraphConditionalHandle::Reply& reply) {
  const auto graph = worker.graph(command.graph);
  if (!graph || !worker.current()) return CUDA_ERROR_INVALID_HANDLE;
  CUgraphConditionalHandle handle = 0;
  const CUresult result = worker.driver().cuGraphConditionalHandleCreate(
      &handle, graph->handle, worker.current()->handle, command.value, command.flags);
  reply.handle = handle;
  return result;
}

}  // namespace outboard::worker
