// Kernel launches and occupancy.
// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstring>

#include "worker/graph_nodes.hpp"
#include "worker/worker.hpp"

namespace outboard::worker {

// Attributes that hold plain values. The others hold handles or are written to by the driver.
bool is_plain_attribute(CUlaunchAttributeID id) {
  switch (id) {
    case CU_LAUNCH_ATTRIBUTE_IGNORE:
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
    case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
    case CU_LAUNCH_ATTRIBUTE_NVLINK_UTIL_CENTRIC_SCHEDULING:
      return true;
    default:
      return false;
  }
}

namespace {

constexpr size_t most_attributes = 32;

/// A copy of the attributes, with room for one more.
struct Attributes {
  std::array<CUlaunchAttribute, most_attributes + 1> values;
  unsigned count = 0;

  CUresult read(std::span<const std::byte> bytes) {
    if (bytes.size() % sizeof(CUlaunchAttribute) != 0) return CUDA_ERROR_INVALID_VALUE;
    if (bytes.size() / sizeof(CUlaunchAttribute) > most_attributes) return CUDA_ERROR_INVALID_VALUE;
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    count = static_cast<unsigned>(bytes.size() / sizeof(CUlaunchAttribute));
    for (unsigned i = 0; i < count; ++i) {
      if (!is_plain_attribute(values[i].id)) return CUDA_ERROR_NOT_SUPPORTED;
    }
    return CUDA_SUCCESS;
  }
  void add_cooperative() {
    values[count] = {};
    values[count].id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
    values[count].value.cooperative = 1;
    ++count;
  }
};

constexpr uint32_t cooperative_flag = 1;

CUresult max_clusters(const Driver& driver, CUfunction function,
                      const wire::command::Occupancy& command, int* first) {
  Attributes attributes;
  if (const CUresult result = attributes.read(command.attributes); result != CUDA_SUCCESS) {
    return result;
  }
  CUlaunchConfig config = {};
  config.gridDimX = config.gridDimY = config.gridDimZ = 1;
  config.gridDimX = command.blocks_or_limit == 0 ? 1 : command.blocks_or_limit;
  config.blockDimX = command.block;
  config.blockDimY = config.blockDimZ = 1;
  config.sharedMemBytes = static_cast<unsigned>(command.shared_bytes);
  config.attrs = attributes.values.data();
  config.numAttrs = attributes.count;
  return command.kind == 3 ? driver.cuOccupancyMaxActiveClusters(first, function, &config)
                           : driver.cuOccupancyMaxPotentialClusterSize(first, function, &config);
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::Launch& command) {
  const Function* function = worker.tables.functions.find(command.function);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  // The driver reads as many bytes as the kernel has: what comes must be exactly that.
  if (command.params.size() != function->params_bytes) return CUDA_ERROR_INVALID_VALUE;
  Stream& stream = worker.issuing();
  const Driver& driver = worker.driver();
  size_t bytes = command.params.size();
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, const_cast<std::byte*>(command.params.data()),
                   CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
  void** const parameters = bytes == 0 ? nullptr : extra;
  // A library's kernel belongs to no context: the driver picks its function by the stream's.
  const CUfunction handle =
      function->kernel ? reinterpret_cast<CUfunction>(function->kernel) : function->handle;
  stream.context->launched = true;
  if (command.attributes.empty() && command.flags == 0) {
    return driver.cuLaunchKernel(handle, command.grid_x, command.grid_y, command.grid_z,
                                 command.block_x, command.block_y, command.block_z,
                                 command.shared_bytes, stream.handle, nullptr, parameters);
  }
  Attributes attributes;
  if (const CUresult result = attributes.read(command.attributes); result != CUDA_SUCCESS) {
    return result;
  }
  if ((command.flags & cooperative_flag) != 0) attributes.add_cooperative();
  CUlaunchConfig config = {};
  config.gridDimX = command.grid_x;
  config.gridDimY = command.grid_y;
  config.gridDimZ = command.grid_z;
  config.blockDimX = command.block_x;
  config.blockDimY = command.block_y;
  config.blockDimZ = command.block_z;
  config.sharedMemBytes = command.shared_bytes;
  config.hStream = stream.handle;
  config.attrs = attributes.values.data();
  config.numAttrs = attributes.count;
  return driver.cuLaunchKernelEx(&config, handle, nullptr, parameters);
}

CUresult execute(Worker& worker, const wire::command::Occupancy& command,
                 wire::command::Occupancy::Reply& reply) {
  const Function* function = worker.tables.functions.find(command.function);
  if (!function) return CUDA_ERROR_INVALID_HANDLE;
  worker.make_current(*function->context);
  const Driver& driver = worker.driver();
  const auto flags = static_cast<unsigned>(command.flags);
  int first = 0;
  int second = 0;
  CUresult result = CUDA_ERROR_INVALID_VALUE;
  switch (command.kind) {
    case 0:
      result = driver.cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
          &first, function->handle, static_cast<int>(command.block), command.shared_bytes, flags);
      break;
    case 1: {
      size_t bytes = 0;
      result = driver.cuOccupancyAvailableDynamicSMemPerBlock(
          &bytes, function->handle, static_cast<int>(command.blocks_or_limit),
          static_cast<int>(command.block));
      reply.first = static_cast<int64_t>(bytes);
      return result;
    }
    case 2:
      result = driver.cuOccupancyMaxPotentialBlockSizeWithFlags(
          &first, &second, function->handle, nullptr, command.shared_bytes,
          static_cast<int>(command.blocks_or_limit), flags);
      break;
    case 3:
    case 4:
      result = max_clusters(driver, function->handle, command, &first);
      break;
    default:
      break;
  }
  reply.first = first;
  reply.second = second;
  return result;
}

}  // namespace outboard::worker
