// Entry points about devices.
// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstring>

#include "config.hpp"
#include "guard.hpp"
#include "occupancy.hpp"

using namespace softgpu;

namespace {

/// For calls about one device: `call(Device&)`.
template <class Call>
CUresult with_device(CUdevice ordinal, Call&& call) noexcept {
  return with_driver([&]() -> CUresult {
    Device* device = Driver::get().device(ordinal);
    return device ? call(*device) : CUDA_ERROR_INVALID_DEVICE;
  });
}

}  // namespace

extern "C" CUresult cuDeviceGetCount(int* count) {
  return with_driver([&] {
    if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *count = static_cast<int>(Driver::get().devices.size());
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  return with_device(ordinal, [&](Device& d) {
    if (device == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *device = d.ordinal;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  return with_device(device, [&](Device&) {
    if (name == nullptr || length <= 0) return CUDA_ERROR_INVALID_VALUE;
    std::snprintf(name, static_cast<size_t>(length), "%s", kDeviceName);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
  return with_device(device, [&](Device& d) {
    if (uuid == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *uuid = d.uuid;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetUuid(CUuuid* uuid, CUdevice device) {
  return cuDeviceGetUuid_v2(uuid, device);
}

extern "C" CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  return with_device(device, [&](Device& d) {
    if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *bytes = d.total_bytes();
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceTotalMem(unsigned int* bytes, CUdevice device) {
  return with_device(device, [&](Device& d) {
    if (bytes == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *bytes = static_cast<unsigned>(std::min<uint64_t>(d.total_bytes(), UINT32_MAX));
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute,
                                         CUdevice device) {
  return with_device(device, [&](Device& d) {
    if (value == nullptr) return CUDA_ERROR_INVALID_VALUE;
    return d.attribute(attribute, value);
  });
}

extern "C" CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice device) {
  return with_device(device, [&](Device&) {
    if (major == nullptr || minor == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *major = config().compute_capability / 10;
    *minor = config().compute_capability % 10;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetProperties(CUdevprop* out, CUdevice device) {
  return with_device(device, [&](Device& d) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    auto get = [&](CUdevice_attribute attribute) {
      int value = 0;
      d.attribute(attribute, &value);
      return value;
    };
    out->maxThreadsPerBlock = get(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    for (int i = 0; i < 3; ++i) {
      out->maxThreadsDim[i] =
          get(static_cast<CUdevice_attribute>(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X + i));
      out->maxGridSize[i] =
          get(static_cast<CUdevice_attribute>(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X + i));
    }
    out->sharedMemPerBlock = get(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK);
    out->totalConstantMemory = get(CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY);
    out->SIMDWidth = kWarp;
    out->memPitch = get(CU_DEVICE_ATTRIBUTE_MAX_PITCH);
    out->regsPerBlock = get(CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK);
    out->clockRate = get(CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
    out->textureAlign = get(CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetLuid(char* luid, unsigned int*, CUdevice device) {
  return with_device(device, [&](Device&) {
    return luid == nullptr ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_SUPPORTED;  // Windows only
  });
}

extern "C" CUresult cuDeviceGetPCIBusId(char* text, int length, CUdevice device) {
  return with_device(device, [&](Device& d) {
    if (text == nullptr || length < 13) return CUDA_ERROR_INVALID_VALUE;
    std::snprintf(text, static_cast<size_t>(length), "0000:%02X:00.0", d.pci_bus);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetByPCIBusId(CUdevice* out, const char* text) {
  return with_driver([&] {
    if (out == nullptr || text == nullptr) return CUDA_ERROR_INVALID_VALUE;
    unsigned domain = 0, bus = 0, slot = 0, function = 0;
    if (std::sscanf(text, "%x:%x:%x.%x", &domain, &bus, &slot, &function) < 3) {
      domain = 0;
      if (std::sscanf(text, "%x:%x.%x", &bus, &slot, &function) < 2) {
        return CUDA_ERROR_INVALID_VALUE;
      }
    }
    for (auto& device : Driver::get().devices) {
      if (domain == 0 && slot == 0 && function == 0 &&
          static_cast<unsigned>(device->pci_bus) == bus) {
        *out = device->ordinal;
        return CUDA_SUCCESS;
      }
    }
    return CUDA_ERROR_INVALID_DEVICE;
  });
}

extern "C" CUresult cuDeviceGetTexture1DLinearMaxWidth(size_t* out, CUarray_format, unsigned,
                                                       CUdevice device) {
  return with_device(device, [&](Device&) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = size_t{1} << 28;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetExecAffinitySupport(int* out, CUexecAffinityType, CUdevice device) {
  return with_device(device, [&](Device&) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = 0;
    return CUDA_SUCCESS;
  });
}

// Atomic operations on the program's memory are those of the CPU: the device has none of its own.
extern "C" CUresult cuDeviceGetHostAtomicCapabilities(unsigned int* out,
                                                      const CUatomicOperation* operations,
                                                      unsigned int count, CUdevice device) {
  return with_device(device, [&](Device&) {
    if (out == nullptr || operations == nullptr || count == 0) return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; ++i) {
      if (operations[i] > CU_ATOMIC_OPERATION_FLOAT_MAX) return CUDA_ERROR_INVALID_VALUE;
      out[i] = 0;
    }
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetP2PAtomicCapabilities(unsigned int* out,
                                                     const CUatomicOperation* operations,
                                                     unsigned int count, CUdevice source,
                                                     CUdevice destination) {
  if (source == destination || Driver::get().device(destination) == nullptr) {
    return with_device(source, [](Device&) { return CUDA_ERROR_INVALID_DEVICE; });
  }
  return cuDeviceGetHostAtomicCapabilities(out, operations, count, source);
}

extern "C" CUresult cuDeviceCanAccessPeer(int* out, CUdevice device, CUdevice peer) {
  return with_device(device, [&](Device&) {
    if (Driver::get().device(peer) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = device != peer;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuDeviceGetP2PAttribute(int* out, CUdevice_P2PAttribute attribute,
                                            CUdevice source, CUdevice destination) {
  return with_device(source, [&](Device&) {
    if (Driver::get().device(destination) == nullptr || source == destination) {
      return CUDA_ERROR_INVALID_DEVICE;
    }
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
      case CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED:
      case CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED:
        *out = 1;
        return CUDA_SUCCESS;
      case CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK:
      case CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED:
        *out = 0;
        return CUDA_SUCCESS;
      default:
        return CUDA_ERROR_INVALID_VALUE;
    }
  });
}

extern "C" CUresult cuProfilerStart() {
  return with_context([](Context&) { return CUDA_SUCCESS; });
}
extern "C" CUresult cuProfilerStop() {
  return with_context([](Context&) { return CUDA_SUCCESS; });
}
