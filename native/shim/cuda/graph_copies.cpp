// Shadows of host memory, and when launches fill and empty them.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/graph_copies.hpp"

#include <cstring>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "generated/shim_api.hpp"
#include "shim/cuda/addresses.hpp"
#include "shim/cuda/device_view.hpp"
#include "shim/cuda/graph_content.hpp"
#include "shim/cuda/guard.hpp"
#include "shim/cuda/host_functions.hpp"
#include "shim/cuda/transfer.hpp"
#include "shim/cuda/waiting.hpp"

namespace outboard::shim {
namespace {

// Copies by their shadow's address, for nodes of which the server tells no more.
constinit std::mutex copies_mutex;
std::map<uint64_t, std::weak_ptr<HostCopy>>& copies_by_shadow() {
  static auto* const map = new std::map<uint64_t, std::weak_ptr<HostCopy>>;
  return *map;
}

void remember(const std::shared_ptr<HostCopy>& copy) {
  const std::lock_guard guard(copies_mutex);
  std::erase_if(copies_by_shadow(), [](const auto& entry) { return entry.second.expired(); });
  copies_by_shadow().insert_or_assign(copy->shadow->address, copy);
}

CUresult make_shadow(Context* context, size_t bytes, std::shared_ptr<Shadow>* out) {
  client::Answer<wire::command::MemoryAllocate> answer;
  const CUresult result = call(context, wire::command::MemoryAllocate{.bytes = bytes}, &answer);
  if (result == CUDA_SUCCESS) {
    *out = std::make_shared<Shadow>(context, answer.reply.address, bytes);
  }
  return result;
}

/// One side of a copy, as pointer arithmetic sees it.
struct Side {
  bool host = false;
  std::byte* base = nullptr;  // of host memory: the first byte copied
  size_t pitch = 0, slice = 0;
};

CUresult read_side(CUmemorytype type, const void* host, CUdeviceptr device, size_t x, size_t y,
                   size_t z, size_t pitch, size_t rows, const CUDA_MEMCPY3D& copy, Side* side) {
  Range range;
  uint64_t address = 0;
  switch (type) {
    case CU_MEMORYTYPE_HOST:
      side->host = true;
      break;
    case CU_MEMORYTYPE_DEVICE:
    case CU_MEMORYTYPE_UNIFIED:
      if (addresses().find(device, &range) && range.on_device()) return CUDA_SUCCESS;
      // Pinned memory by the address that devices know it by, or, unified, any of the program's.
      address = device;
      side->host = find_host(&address) || type == CU_MEMORYTYPE_UNIFIED;
      host = reinterpret_cast<const void*>(address);
      break;
    case CU_MEMORYTYPE_ARRAY:
      return CUDA_SUCCESS;
    default:
      return CUDA_ERROR_INVALID_VALUE;
  }
  if (!side->host) return CUDA_SUCCESS;
  if (host == nullptr) return CUDA_ERROR_INVALID_VALUE;
  side->pitch = pitch != 0 ? pitch : x + copy.WidthInBytes;
  side->slice = side->pitch * (rows != 0 ? rows : y + copy.Height);
  side->base =
      static_cast<std::byte*>(const_cast<void*>(host)) + z * side->slice + y * side->pitch + x;
  return CUDA_SUCCESS;
}

// Whether the side is no host memory, or such as the server finds itself.
CUresult find_side(Context* context, const Side& side, const CUDA_MEMCPY3D& copy, bool* there) {
  *there = !side.host;
  if (*there) return CUDA_SUCCESS;
  const size_t bytes =
      (copy.Depth - 1) * side.slice + (copy.Height - 1) * side.pitch + copy.WidthInBytes;
  return find_for_graph(context, reinterpret_cast<uint64_t>(side.base), bytes, there);
}

// The server tells by the address what memory is.
void name_by_address(CUmemorytype* type, CUdeviceptr* address, const void* host) {
  if (*type == CU_MEMORYTYPE_HOST) *address = reinterpret_cast<CUdeviceptr>(host);
  *type = CU_MEMORYTYPE_DEVICE;
}

// `row(host, offset in the shadow, bytes)` for every stretch of host memory without gaps.
template <typename Row>
CUresult each_row(const HostCopy& copy, Row&& row) {
  const CUDA_MEMCPY3D& box = copy.params;
  if (copy.dense()) return row(copy.host, 0, copy.shadow->bytes);
  for (size_t z = 0; z < box.Depth; ++z) {
    for (size_t y = 0; y < box.Height; ++y) {
      const CUresult result = row(copy.host + z * copy.slice + y * copy.pitch,
                                  (z * box.Height + y) * box.WidthInBytes, box.WidthInBytes);
      if (result != CUDA_SUCCESS) return result;
    }
  }
  return CUDA_SUCCESS;
}

}  // namespace

Shadow::~Shadow() {
  if (!client::running() || context->destroyed.load()) return;
  // Nobody waits for the answer: the server frees it once what was sent before is done.
  shim::send(context, wire::command::MemoryFree{.address = address});
}

bool HostCopy::dense() const {
  return (params.Height == 1 || pitch == params.WidthInBytes) &&
         (params.Depth == 1 || slice == params.WidthInBytes * params.Height);
}

CUresult HostCopy::send(Stream* stream) const {
  if (dense()) return send_bytes(stream, shadow->address, host, shadow->bytes);
  const std::unique_ptr<std::byte[]> gathered(new std::byte[shadow->bytes]);
  each_row(*this, [&](const std::byte* from, size_t at, size_t bytes) {
    std::memcpy(gathered.get() + at, from, bytes);
    return CUDA_SUCCESS;
  });
  return send_bytes(stream, shadow->address, gathered.get(), shadow->bytes);
}

CUresult HostCopy::fetch_later(Stream* stream) const {
  return each_row(*this, [&](std::byte* to, size_t at, size_t bytes) {
    return fetch_bytes_later(stream, to, shadow->address + at, bytes);
  });
}

CUresult HostCopy::fetch_now(Stream* stream) const {
  return each_row(*this, [&](std::byte* to, size_t at, size_t bytes) {
    return fetch_bytes_now(stream, to, shadow->address + at, bytes);
  });
}

std::shared_ptr<HostCopy> find_copy(uint64_t shadow) {
  const std::lock_guard guard(copies_mutex);
  const auto found = copies_by_shadow().find(shadow);
  return found != copies_by_shadow().end() ? found->second.lock() : nullptr;
}

CUresult replace_host(Context* context, CUDA_MEMCPY3D* params, std::shared_ptr<HostCopy>* out) {
  Side source, target;
  CUresult result =
      read_side(params->srcMemoryType, params->srcHost, params->srcDevice, params->srcXInBytes,
                params->srcY, params->srcZ, params->srcPitch, params->srcHeight, *params, &source);
  if (result == CUDA_SUCCESS) {
    result = read_side(params->dstMemoryType, params->dstHost, params->dstDevice,
                       params->dstXInBytes, params->dstY, params->dstZ, params->dstPitch,
                       params->dstHeight, *params, &target);
  }
  if (result != CUDA_SUCCESS || (!source.host && !target.host)) return result;
  size_t bytes = 0;
  if (__builtin_mul_overflow(params->WidthInBytes, params->Height, &bytes) ||
      __builtin_mul_overflow(bytes, params->Depth, &bytes) || bytes == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  bool source_there = false, target_there = false;
  result = find_side(context, source, *params, &source_there);
  if (result == CUDA_SUCCESS) result = find_side(context, target, *params, &target_there);
  if (result != CUDA_SUCCESS) return result;
  if (source_there && target_there) {
    if (source.host) name_by_address(&params->srcMemoryType, &params->srcDevice, params->srcHost);
    if (target.host) name_by_address(&params->dstMemoryType, &params->dstDevice, params->dstHost);
    return CUDA_SUCCESS;
  }
  if (source.host && target.host) return CUDA_ERROR_NOT_SUPPORTED;
  auto copy = std::make_shared<HostCopy>();
  copy->params = *params;
  copy->to_device = source.host;
  const Side& host = source.host ? source : target;
  copy->host = host.base;
  copy->pitch = host.pitch;
  copy->slice = host.slice;
  result = make_shadow(context, bytes, &copy->shadow);
  if (result != CUDA_SUCCESS) return result;
  auto& type = source.host ? params->srcMemoryType : params->dstMemoryType;
  auto& device = source.host ? params->srcDevice : params->dstDevice;
  type = CU_MEMORYTYPE_DEVICE;
  device = copy->shadow->address;
  if (source.host) {
    params->srcHost = nullptr;
  } else {
    params->dstHost = nullptr;
  }
  (source.host ? params->srcXInBytes : params->dstXInBytes) = 0;
  (source.host ? params->srcY : params->dstY) = 0;
  (source.host ? params->srcZ : params->dstZ) = 0;
  (source.host ? params->srcPitch : params->dstPitch) = params->WidthInBytes;
  (source.host ? params->srcHeight : params->dstHeight) = params->Height;
  remember(copy);
  *out = std::move(copy);
  return CUDA_SUCCESS;
}

namespace {

// The parameters that describe a captured copy, as a node tells them.
void describe_end(const VolumeEnd& end, bool source, CUDA_MEMCPY3D* params) {
  const auto type = end.array != nullptr ? CU_MEMORYTYPE_ARRAY
                    : end.on_device      ? CU_MEMORYTYPE_DEVICE
                                         : CU_MEMORYTYPE_HOST;
  (source ? params->srcMemoryType : params->dstMemoryType) = type;
  (source ? params->srcXInBytes : params->dstXInBytes) = end.x_bytes;
  (source ? params->srcY : params->dstY) = end.y;
  (source ? params->srcZ : params->dstZ) = end.z;
  (source ? params->srcPitch : params->dstPitch) = end.pitch;
  (source ? params->srcHeight : params->dstHeight) = end.rows;
  (source ? params->srcArray : params->dstArray) =
      reinterpret_cast<CUarray>(const_cast<Array*>(end.array));
  (source ? params->srcDevice : params->dstDevice) = end.on_device ? end.address : 0;
  if (end.on_server()) return;
  if (source) {
    params->srcHost = reinterpret_cast<const void*>(end.address);
  } else {
    params->dstHost = reinterpret_cast<void*>(end.address);
  }
}

}  // namespace

CUresult capture_volume(Stream* stream, const VolumeEnd& to, const VolumeEnd& from,
                        const VolumeShape& shape) {
  const VolumeEnd& host = to.on_server() ? from : to;
  auto copy = std::make_shared<HostCopy>();
  copy->params.WidthInBytes = shape.width_bytes;
  copy->params.Height = shape.height;
  copy->params.Depth = shape.depth;
  describe_end(from, true, &copy->params);
  describe_end(to, false, &copy->params);
  copy->to_device = to.on_server();
  copy->host = reinterpret_cast<std::byte*>(host.address);
  copy->pitch = host.pitch;
  copy->slice = host.pitch * host.rows;
  CUresult result = make_shadow(stream->context, shape.bytes(), &copy->shadow);
  if (result != CUDA_SUCCESS) return result;
  remember(copy);
  if (result = note_work(stream); result != CUDA_SUCCESS) return result;
  Graph* graph = captured_graph(stream);
  if (graph == nullptr) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  graph->has_host_parts = true;
  graph->keeps.push_back(copy);
  VolumeEnd shadow;
  shadow.address = copy->shadow->address;
  shadow.on_device = true;
  shadow.pitch = shape.width_bytes;
  shadow.rows = shape.height;
  const VolumeEnd& target = copy->to_device ? to : shadow;
  const VolumeEnd& source = copy->to_device ? shadow : from;
  if (shape.height != 1 || shape.depth != 1 || target.array != nullptr || source.array != nullptr) {
    return send_volume(stream, target, source, shape);
  }
  return shim::send(stream, wire::command::CopyOnDevice{.stream = stream->head.id(),
                                                        .destination = target.address,
                                                        .source = source.address,
                                                        .bytes = shape.width_bytes});
}

CUresult capture_copy(Stream* stream, bool to_device, uint64_t device, const void* host,
                      size_t bytes) {
  VolumeEnd on_device, own;
  on_device.address = device;
  on_device.on_device = true;
  own.address = reinterpret_cast<uint64_t>(host);
  on_device.pitch = own.pitch = bytes;
  on_device.rows = own.rows = 1;
  return to_device ? capture_volume(stream, on_device, own, {bytes, 1, 1})
                   : capture_volume(stream, own, on_device, {bytes, 1, 1});
}

// ---- plans
// ---------------------------------------------------------------------------------------

namespace {

/// A graph with the graphs inside it as one: two vertices for each node, before and after it.
struct Flat {
  std::vector<std::vector<size_t>> next;
  std::vector<std::pair<size_t, LaunchPlan::Copy>> copies;  // by vertex
  std::vector<std::pair<size_t, LaunchPlan::Function>> functions;

  size_t add() {
    const size_t before = next.size();
    next.emplace_back().push_back(before + 1);
    next.emplace_back();
    return before;
  }
  std::vector<bool> reached(size_t from) const {
    std::vector<bool> seen(next.size(), false);
    std::vector<size_t> open{from};
    while (!open.empty()) {
      const size_t at = open.back();
      open.pop_back();
      if (seen[at]) continue;
      seen[at] = true;
      open.insert(open.end(), next[at].begin(), next[at].end());
    }
    return seen;
  }
};

CUresult flatten(Graph* graph, Flat* flat, std::vector<size_t>* places);

CUresult flatten_inside(Graph* inside, size_t outer, Flat* flat) {
  std::vector<size_t> places;
  const CUresult result = flatten(inside, flat, &places);
  for (const size_t place : places) {
    flat->next[outer].push_back(place);          // before all of it
    flat->next[place + 1].push_back(outer + 1);  // after all of it
  }
  return result;
}

CUresult flatten_node(Graph* graph, uint64_t id, CUgraphNodeType type, size_t place, Flat* flat) {
  if (type != CU_GRAPH_NODE_TYPE_MEMCPY && type != CU_GRAPH_NODE_TYPE_HOST &&
      type != CU_GRAPH_NODE_TYPE_GRAPH && type != CU_GRAPH_NODE_TYPE_CONDITIONAL) {
    return CUDA_SUCCESS;
  }
  client::Answer<wire::command::NodeGetParams> answer;
  const CUresult result = call(graph->context, wire::command::NodeGetParams{.node = id}, &answer);
  if (result != CUDA_SUCCESS) return result;
  CUgraphNodeParams params;
  if (answer.reply.content.size() != sizeof params) return CUDA_ERROR_UNKNOWN;
  std::memcpy(&params, answer.reply.content.data(), sizeof params);
  if (type == CU_GRAPH_NODE_TYPE_MEMCPY) {
    auto copy = find_copy(params.memcpy.copyParams.srcDevice);
    if (copy == nullptr) copy = find_copy(params.memcpy.copyParams.dstDevice);
    if (copy != nullptr) flat->copies.push_back({place, {id, std::move(copy)}});
    return CUDA_SUCCESS;
  }
  if (type == CU_GRAPH_NODE_TYPE_HOST) {
    const auto number = reinterpret_cast<uint64_t>(params.host.userData);
    flat->functions.push_back({place, {id, number, {}, {}}});
    return CUDA_SUCCESS;
  }
  Node* node = name_node(graph, id);
  if (node == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
  if (type == CU_GRAPH_NODE_TYPE_GRAPH &&
      name_inside(node, reinterpret_cast<uint64_t>(params.graph.graph)) == nullptr) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  for (Graph* inside : node->graphs) {
    const CUresult inner = flatten_inside(inside, place, flat);
    if (inner != CUDA_SUCCESS) return inner;
  }
  return CUDA_SUCCESS;
}

CUresult flatten(Graph* graph, Flat* flat, std::vector<size_t>* places) {
  Description description;
  CUresult result = describe(graph, &description);
  if (result != CUDA_SUCCESS) return result;
  for (size_t i = 0; i < description.nodes.size(); ++i) places->push_back(flat->add());
  for (size_t i = 0; i < description.from.size(); ++i) {
    flat->next[(*places)[description.from[i]] + 1].push_back((*places)[description.to[i]]);
  }
  for (size_t i = 0; i < description.nodes.size() && result == CUDA_SUCCESS; ++i) {
    result = flatten_node(graph, description.nodes[i],
                          static_cast<CUgraphNodeType>(description.types[i]), (*places)[i], flat);
  }
  return result;
}

// Copies between which and the program a function comes are that function's.
void assign(const Flat& flat, LaunchPlan* plan) {
  for (const auto& [vertex, copy] : flat.copies) plan->copies.push_back(copy);
  for (const auto& [vertex, function] : flat.functions) plan->functions.push_back(function);
  for (size_t c = 0; c < flat.copies.size(); ++c) {
    const size_t place = flat.copies[c].first;
    LaunchPlan::Copy& copy = plan->copies[c];
    const std::vector<bool> after = flat.reached(place);
    for (size_t f = 0; f < flat.functions.size(); ++f) {
      const size_t call = flat.functions[f].first;
      if (!copy.copy->to_device && after[call]) {
        plan->functions[f].fetches.push_back(c);
        copy.with_launch = false;
      }
      if (copy.copy->to_device && flat.reached(call)[place]) {
        plan->functions[f].sends.push_back(c);
        copy.with_launch = false;
      }
    }
  }
}

}  // namespace

CUresult make_plan(Graph* graph, std::shared_ptr<const LaunchPlan>* out) {
  out->reset();
  if (!graph->has_host_parts) return CUDA_SUCCESS;
  Flat flat;
  std::vector<size_t> places;
  const CUresult result = flatten(graph, &flat, &places);
  if (result != CUDA_SUCCESS) return result;
  if (flat.copies.empty() && flat.functions.empty()) return CUDA_SUCCESS;
  auto plan = std::make_shared<LaunchPlan>();
  assign(flat, plan.get());
  *out = std::move(plan);
  return CUDA_SUCCESS;
}

CUresult LaunchPlan::before_launch(Stream* stream) const {
  for (const Copy& copy : copies) {
    if (!copy.with_launch || !copy.copy->to_device) continue;
    const CUresult result = copy.copy->send(stream);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

CUresult LaunchPlan::after_launch(Stream* stream) const {
  for (const Copy& copy : copies) {
    if (!copy.with_launch || copy.copy->to_device) continue;
    const CUresult result = copy.copy->fetch_later(stream);
    if (result != CUDA_SUCCESS) return result;
  }
  return CUDA_SUCCESS;
}

// Beside the launch's own stream, which waits for the function.
void LaunchPlan::before_function(Stream* stream, size_t place) const {
  if (functions[place].fetches.empty()) return;
  Stream* side = side_stream(stream->context);
  if (side == nullptr) return;
  for (const size_t copy : functions[place].fetches) copies[copy].copy->fetch_now(side);
}

void LaunchPlan::after_function(Stream* stream, size_t place) const {
  if (functions[place].sends.empty()) return;
  Stream* side = side_stream(stream->context);
  if (side == nullptr) return;
  for (const size_t copy : functions[place].sends) copies[copy].copy->send(side);
  wait_all(side);
}

}  // namespace outboard::shim
