// Devices: all that a device says of itself came with the welcome.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "generated/shim_api.hpp"
#include "shim/cuda/guard.hpp"

namespace outboard::shim {
namespace {

CUresult enter_device(CUdevice ordinal, const void* out, Device** device) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *device = find_device(ordinal);
  return *device != nullptr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

// What the server says of two of its devices; 0 between servers, which cannot reach each other.
int peer_attribute(const Device& device, const Device& peer, CUdevice_P2PAttribute attribute) {
  return device.server == peer.server ? device.snapshot->peer_attribute(peer.index, attribute) : 0;
}

}  // namespace

bool reaches(const Device& device, const Device& peer) {
  return peer_attribute(device, peer, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED) != 0;
}

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  Device* found = nullptr;
  if (const CUresult result = enter_device(ordinal, device, &found); result != CUDA_SUCCESS) {
    return result;
  }
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *count = device_count;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char* name, int len, CUdevice dev) {
  Device* device = nullptr;
  if (const CUresult result = enter_device(dev, name, &device); result != CUDA_SUCCESS)
    return result;
  if (len <= 0) return CUDA_ERROR_INVALID_VALUE;
  std::snprintf(name, static_cast<size_t>(len), "%s", device->snapshot->name.c_str());
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice dev) {
  Device* device = nullptr;
  if (const CUresult result = enter_device(dev, uuid, &device); result != CUDA_SUCCESS)
    return result;
  std::memcpy(uuid, device->snapshot->uuid.data(), sizeof *uuid);
  return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice dev) {
  Device* device = nullptr;
  if (const CUresult result = enter_device(dev, bytes, &device); result != CUDA_SUCCESS) {
    return result;
  }
  *bytes = device->snapshot->total_bytes;
  return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(unsigned int* bytes, CUdevice dev) {
  Device* device = nullptr;
  if (const CUresult result = enter_device(dev, bytes, &device); result != CUDA_SUCCESS) {
    return result;
  }
  *bytes = static_cast<unsigned>(std::min<uint64_t>(device->snapshot->total_bytes, UINT32_MAX));
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetLuid(char* luid, unsigned int*, CUdevice dev) {
  Device* device = nullptr;
  const CUresult result = enter_device(dev, luid, &device);
  return result == CUDA_SUCCESS ? CUDA_ERROR_NOT_SUPPORTED : result;
}

CUresult cuDeviceGetAttribute(int* pi, CUdevice_attribute attrib, CUdevice dev) {
  Device* device = nullptr;
  if (const CUresult result = enter_device(dev, pi, &device); result != CUDA_SUCCESS) return result;
  if (attrib <= 0 || attrib >= attribute_count) return CUDA_ERROR_INVALID_VALUE;
  *pi = device->attributes[attrib];
  return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice dev) {
  Device* device = nullptr;
  if (const CUresult result = enter_device(dev, major, &device); result != CUDA_SUCCESS) {
    return result;
  }
  if (minor == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *major = device->attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
  *minor = device->attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetProperties(CUdevprop* prop, CUdevice dev) {
  Device* device = nullptr;
  if (const CUresult result = enter_device(dev, prop, &device); result != CUDA_SUCCESS)
    return result;
  const auto value = [device](CUdevice_attribute which) { return device->attribute(which); };
  prop->maxThreadsPerBlock = value(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
  prop->maxThreadsDim[0] = value(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X);
  prop->maxThreadsDim[1] = value(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y);
  prop->maxThreadsDim[2] = value(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z);
  prop->maxGridSize[0] = value(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X);
  prop->maxGridSize[1] = value(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y);
  prop->maxGridSize[2] = value(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z);
  prop->sharedMemPerBlock = value(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK);
  prop->totalConstantMemory = value(CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY);
  prop->SIMDWidth = value(CU_DEVICE_ATTRIBUTE_WARP_SIZE);
  prop->memPitch = value(CU_DEVICE_ATTRIBUTE_MAX_PITCH);
  prop->regsPerBlock = value(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK);
  prop->clockRate = value(CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
  prop->textureAlign = value(CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT);
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetPCIBusId(char* pciBusId, int len, CUdevice dev) {
  Device* device = nullptr;
  if (const CUresult result = enter_device(dev, pciBusId, &device); result != CUDA_SUCCESS) {
    return result;
  }
  if (len <= 0) return CUDA_ERROR_INVALID_VALUE;
  std::snprintf(pciBusId, static_cast<size_t>(len), "%04X:%02X:%02X.0",
                device->attribute(CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID),
                device->attribute(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID),
                device->attribute(CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID));
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetByPCIBusId(CUdevice* dev, const char* pciBusId) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (dev == nullptr || pciBusId == nullptr) return CUDA_ERROR_INVALID_VALUE;
  unsigned domain = 0, bus = 0, number = 0;
  if (std::sscanf(pciBusId, "%x:%x:%x", &domain, &bus, &number) != 3) {
    domain = 0;
    if (std::sscanf(pciBusId, "%x:%x", &bus, &number) != 2) return CUDA_ERROR_INVALID_VALUE;
  }
  for (int ordinal = 0; ordinal < device_count; ++ordinal) {
    const Device* device = devices[ordinal];
    if (static_cast<unsigned>(device->attribute(CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)) == domain &&
        static_cast<unsigned>(device->attribute(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)) == bus &&
        static_cast<unsigned>(device->attribute(CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)) == number) {
      *dev = ordinal;
      return CUDA_SUCCESS;
    }
  }
  return CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceCanAccessPeer(int* canAccessPeer, CUdevice dev, CUdevice peerDev) {
  Device* device = nullptr;
  if (const CUresult result = enter_device(dev, canAccessPeer, &device); result != CUDA_SUCCESS) {
    return result;
  }
  const Device* peer = find_device(peerDev);
  if (peer == nullptr) return CUDA_ERROR_INVALID_DEVICE;
  *canAccessPeer = reaches(*device, *peer);
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetP2PAttribute(int* value, CUdevice_P2PAttribute attrib, CUdevice srcDevice,
                                 CUdevice dstDevice) {
  Device* device = nullptr;
  if (const CUresult result = enter_device(srcDevice, value, &device); result != CUDA_SUCCESS) {
    return result;
  }
  const Device* peer = find_device(dstDevice);
  if (peer == nullptr || peer == device) return CUDA_ERROR_INVALID_DEVICE;
  if (attrib < CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK) return CUDA_ERROR_INVALID_VALUE;
  *value = peer_attribute(*device, *peer, attrib);
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetP2PAtomicCapabilities(unsigned int* capabilities,
                                          const CUatomicOperation* operations, unsigned int count,
                                          CUdevice srcDevice, CUdevice dstDevice) {
  if (const CUresult result = enter(); result != CUDA_SUCCESS) return result;
  if (find_device(srcDevice) == nullptr || find_device(dstDevice) == nullptr ||
      srcDevice == dstDevice) {
    return CUDA_ERROR_INVALID_DEVICE;
  }
  if (capabilities == nullptr || operations == nullptr || count == 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  for (unsigned i = 0; i < count; ++i) {
    if (static_cast<unsigned>(operations[i]) >= CU_ATOMIC_OPERATION_MAX) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    capabilities[i] = 0;
  }
  return CUDA_SUCCESS;
}

}  // namespace outboard::shim
