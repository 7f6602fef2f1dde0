// What only the driver beside the GPU knows, asked through its private export tables.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <vector>

#include "worker/worker.hpp"

namespace outboard::worker {
namespace {

// 1734dc26-800d-4745-8726-c0f1e7dd8bca: where the texture processing clusters of a device lie.
constexpr CUuuid tpc_table_id = {
    {0x17, 0x34, static_cast<char>(0xdc), 0x26, static_cast<char>(0x80), 0x0d, 0x47, 0x45,
     static_cast<char>(0x87), 0x26, static_cast<char>(0xc0), static_cast<char>(0xf1),
     static_cast<char>(0xe7), static_cast<char>(0xdd), static_cast<char>(0x8b),
     static_cast<char>(0xca)}};
constexpr size_t arrays_slot = 4;  // hands out two arrays, one byte for each cluster
constexpr size_t free_slot = 13;   // takes them back
constexpr int multiprocessors_per_cluster = 2;
constexpr uint32_t tpc_kind = 0;

using Arrays = CUresult (*)(uint8_t**, uint8_t**);
using Free = CUresult (*)(uint8_t*, uint8_t*);

// A slot of the driver's table; null where the table is not there, or shorter than what is known of
// it: its first slot is its size.
void* const* tpc_table(const Driver& driver) {
  const void* table = nullptr;
  if (driver.cuGetExportTable(&table, &tpc_table_id) != CUDA_SUCCESS || !table) return nullptr;
  size_t bytes = 0;
  std::memcpy(&bytes, table, sizeof bytes);
  return bytes > free_slot * sizeof(void*) ? static_cast<void* const*>(table) : nullptr;
}

// The arrays describe the device of the current context.
CUresult read_tpc_arrays(const Driver& driver, CUdevice device, std::vector<std::byte>& place,
                         std::vector<std::byte>& gpc) {
  void* const* table = tpc_table(driver);
  if (!table || !table[arrays_slot] || !table[free_slot]) return CUDA_ERROR_NOT_SUPPORTED;
  int multiprocessors = 0;
  CUresult result = driver.cuDeviceGetAttribute(&multiprocessors,
                                                CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
  if (result != CUDA_SUCCESS) return result;
  uint8_t* first = nullptr;
  uint8_t* second = nullptr;
  result = reinterpret_cast<Arrays>(table[arrays_slot])(&first, &second);
  if (result != CUDA_SUCCESS) return result;
  const auto count = static_cast<size_t>(multiprocessors / multiprocessors_per_cluster);
  if (first && second) {
    const auto* begin = reinterpret_cast<const std::byte*>(first);
    place.assign(begin, begin + count);
    begin = reinterpret_cast<const std::byte*>(second);
    gpc.assign(begin, begin + count);
  }
  reinterpret_cast<Free>(table[free_slot])(first, second);
  return place.empty() ? CUDA_ERROR_NOT_SUPPORTED : CUDA_SUCCESS;
}

}  // namespace

CUresult execute(Worker& worker, const wire::command::ProcessPrivateTable& command,
                 wire::command::ProcessPrivateTable::Reply& reply) {
  // The reply's spans must outlive this call.
  static thread_local std::vector<std::byte> place;
  static thread_local std::vector<std::byte> gpc;
  const Context* context = worker.current();
  if (!context || !context->alive) return CUDA_ERROR_INVALID_CONTEXT;
  if (command.kind != tpc_kind || command.device != context->device) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  place.clear();
  gpc.clear();
  const CUresult result =
      read_tpc_arrays(worker.driver(), worker.devices[context->device].handle, place, gpc);
  reply.first = place;
  reply.second = gpc;
  return result;
}

}  // namespace outboard::worker
