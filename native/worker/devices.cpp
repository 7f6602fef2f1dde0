// Describing devices.
// SPDX-License-Identifier: Apache-2.0
#include "worker/devices.hpp"

#include <cstring>
#include <span>

#include "base/sha256.hpp"

namespace outboard::worker {
namespace {

using nlohmann::json;

int attribute(const Driver& driver, CUdevice device, CUdevice_attribute which) {
  int value = 0;
  driver.cuDeviceGetAttribute(&value, which, device);
  return value;
}

std::string device_name(const Driver& driver, CUdevice device) {
  char name[256] = {};
  driver.cuDeviceGetName(name, sizeof name, device);
  name[sizeof name - 1] = '\0';
  return name;
}

std::string uuid_hex(const Driver& driver, CUdevice device) {
  CUuuid uuid = {};
  driver.cuDeviceGetUuid_v2(&uuid, device);
  return hex({reinterpret_cast<const uint8_t*>(uuid.bytes), sizeof uuid.bytes});
}

std::string luid_hex(const Driver& driver, CUdevice device) {
  char luid[8] = {};
  unsigned mask = 0;
  driver.cuDeviceGetLuid(luid, &mask, device);
  return hex({reinterpret_cast<const uint8_t*>(luid), sizeof luid});
}

json attributes(const Driver& driver, CUdevice device) {
  json list = json::array();
  for (int which = 1; which < CU_DEVICE_ATTRIBUTE_MAX; ++which) {
    int value = 0;
    if (driver.cuDeviceGetAttribute(&value, static_cast<CUdevice_attribute>(which), device) ==
        CUDA_SUCCESS) {
      list.push_back({which, value});
    }
  }
  return list;
}

// For each device of the session: performance rank, access, native atomics, array access.
json peers(const Driver& driver, const std::vector<Device>& devices, size_t index) {
  constexpr CUdevice_P2PAttribute asked[] = {CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK,
                                             CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED,
                                             CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED,
                                             CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED};
  json rows = json::array();
  for (size_t peer = 0; peer < devices.size(); ++peer) {
    json row = json::array();
    for (const CUdevice_P2PAttribute which : asked) {
      int value = 0;
      if (peer != index) {
        driver.cuDeviceGetP2PAttribute(&value, which, devices[index].handle, devices[peer].handle);
      }
      row.push_back(value);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace

std::string uuid_text(const Driver& driver, CUdevice device) {
  std::string text = uuid_hex(driver, device);
  for (const size_t at : {20, 16, 12, 8}) text.insert(at, 1, '-');
  return "GPU-" + text;
}

uint64_t measure_context_bytes(const Driver& driver, CUdevice device) {
  CUcontext first = nullptr;
  CUcontext second = nullptr;
  size_t before = 0;
  size_t after = 0;
  size_t total = 0;
  uint64_t bytes = 0;
  if (driver.cuDevicePrimaryCtxRetain(&first, device) != CUDA_SUCCESS) return 0;
  driver.cuCtxSetCurrent(first);
  if (driver.cuMemGetInfo_v2(&before, &total) == CUDA_SUCCESS &&
      driver.cuCtxCreate_v2(&second, 0, device) == CUDA_SUCCESS) {
    if (driver.cuMemGetInfo_v2(&after, &total) == CUDA_SUCCESS && before > after) {
      bytes = before - after;
    }
    driver.cuCtxDestroy_v2(second);
  }
  driver.cuCtxSetCurrent(nullptr);
  driver.cuDevicePrimaryCtxRelease_v2(device);
  return bytes;
}

json describe_device(const Driver& driver, const std::vector<Device>& devices, size_t index) {
  const CUdevice device = devices[index].handle;
  size_t physical = 0;
  driver.cuDeviceTotalMem_v2(&physical, device);
  unsigned flags = 0;
  int active = 0;
  driver.cuDevicePrimaryCtxGetState(device, &flags, &active);
  return {{"name", device_name(driver, device)},       {"uuid", uuid_hex(driver, device)},
          {"total_bytes", devices[index].share_bytes}, {"physical_bytes", physical},
          {"attributes", attributes(driver, device)},  {"p2p", peers(driver, devices, index)},
          {"luid", luid_hex(driver, device)},          {"primary_flags", flags}};
}

std::string inventory(const Driver& driver, std::string* error) {
  int count = 0;
  int version = 0;
  driver.cuDriverGetVersion(&version);
  if (const CUresult result = driver.cuDeviceGetCount(&count); result != CUDA_SUCCESS) {
    *error = "the driver cannot count its devices: " + error_name(driver, result);
    return {};
  }
  bool software = count > 0;
  json list = json::array();
  for (int index = 0; index < count; ++index) {
    CUdevice device = 0;
    if (driver.cuDeviceGet(&device, index) != CUDA_SUCCESS) continue;
    const auto get = [&](CUdevice_attribute which) { return attribute(driver, device, which); };
    char pci[32];
    std::snprintf(pci, sizeof pci, "%04x:%02x:%02x.0", get(CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID),
                  get(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID), get(CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID));
    const std::string capability =
        std::to_string(get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)) + "." +
        std::to_string(get(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
    size_t total = 0;
    driver.cuDeviceTotalMem_v2(&total, device);
    const std::string name = device_name(driver, device);
    software = software && name.starts_with("Software GPU");
    list.push_back({{"index", index},
                    {"uuid", uuid_text(driver, device)},
                    {"name", name},
                    {"total_bytes", total},
                    {"compute_capability", capability},
                    {"pci", pci},
                    {"multiprocessors", get(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)},
                    {"context_bytes", measure_context_bytes(driver, device)}});
  }
  const json line = {{"protocol", wire::protocol_hash_text},
                     {"driver_version", version},
                     {"software", software},
                     {"devices", list}};
  return line.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace outboard::worker
