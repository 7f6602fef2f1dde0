// Virtual memory management: reserve, map two pieces in a row, access, remap, release.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

namespace {

// The widest is more than any one region of addresses that is set aside for it. Sanitizers
// leave little.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr size_t kWide = size_t{1} << 30;
constexpr size_t kWidest = kWide;
#else
constexpr size_t kWide = size_t{2} << 40;
constexpr size_t kWidest = size_t{17} << 40;
#endif

// Memory of a host, where the device's attributes say that there is none.
void of_a_host(Program& program, CUdevice device, CUdeviceptr mapped, size_t bytes) {
  int mappable = -1;
  int pooled = -1;
  CHECK(cuDeviceGetAttribute(&mappable,
                             CU_DEVICE_ATTRIBUTE_HOST_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, device));
  CHECK(cuDeviceGetAttribute(&pooled, CU_DEVICE_ATTRIBUTE_HOST_MEMORY_POOLS_SUPPORTED, device));
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  CUmemPoolProps shape{};
  shape.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  CUmemAccessDesc access{};
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  CUmemGenericAllocationHandle memory = 0;
  CUmemoryPool pool = nullptr;
  for (const CUmemLocationType type : {CU_MEM_LOCATION_TYPE_HOST, CU_MEM_LOCATION_TYPE_HOST_NUMA}) {
    properties.location.type = shape.location.type = access.location.type = type;
    program.expect(
        mappable != 0 || (cuMemCreate(&memory, bytes, &properties, 0) == CUDA_ERROR_NOT_SUPPORTED &&
                          cuMemSetAccess(mapped, bytes, &access, 1) == CUDA_ERROR_NOT_SUPPORTED),
        "memory of a host is not made, nor opened to it");
    program.expect(pooled != 0 || cuMemPoolCreate(&pool, &shape) == CUDA_ERROR_NOT_SUPPORTED,
                   "a host has no pool");
  }
}

}  // namespace

int main(int argc, char** argv) {
  Program program("virtualMemory", argc, argv);
  const Device device;
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = device.device();
  size_t granularity = 0;
  CHECK(cuMemGetAllocationGranularity(&granularity, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
  program.expect(granularity >= 4096 && (granularity & (granularity - 1)) == 0,
                 "the granularity is a power of two");

  CUdeviceptr address = 0;
  CUmemGenericAllocationHandle pieces[2] = {};
  CHECK(cuMemAddressReserve(&address, 4 * granularity, 0, 0, 0));
  CUmemAccessDesc access{};
  access.location = properties.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  for (int i = 0; i < 2; ++i) {
    CHECK(cuMemCreate(&pieces[i], granularity, &properties, 0));
    CHECK(cuMemMap(address + i * granularity, granularity, 0, pieces[i], 0));
  }
  CHECK(cuMemSetAccess(address, 2 * granularity, &access, 1));
  of_a_host(program, device.device(), address, 2 * granularity);

  // One kernel works across the seam.
  const int count = static_cast<int>(2 * granularity / sizeof(int));
  CHECK(cuMemsetD32(address, 7, static_cast<size_t>(count)));
  device.launch_step(address, count, 2, nullptr);
  CHECK(cuCtxSynchronize());
  program.expect(download(address, static_cast<size_t>(count)) ==
                     std::vector<int>(static_cast<size_t>(count), 15),
                 "two pieces in a row are one range");

  // The second piece appears elsewhere with what it held.
  CHECK(cuMemUnmap(address + granularity, granularity));
  CHECK(cuMemMap(address + 3 * granularity, granularity, 0, pieces[1], 0));
  CHECK(cuMemSetAccess(address + 3 * granularity, granularity, &access, 1));
  CHECK(cuMemsetD32(address + 3 * granularity, 21, 10));
  const std::vector<int> moved = download(address + 3 * granularity, granularity / sizeof(int));
  program.expect(moved[0] == 21 && moved[9] == 21 && moved[10] == 15 && moved.back() == 15,
                 "memory keeps its contents when it is mapped elsewhere");
  int unread = 0;
  program.expect(cuMemcpyDtoH(&unread, address + granularity, 4) == CUDA_ERROR_INVALID_VALUE,
                 "what is not mapped cannot be copied from");
  program.save(moved);

  // Handles, what they say, and what is refused.
  CUmemGenericAllocationHandle again = 0;
  CUmemAllocationProp told{};
  unsigned long long allowed = 0;
  void* seen = reinterpret_cast<void*>(address + 3 * granularity + 64);
  CHECK(cuMemRetainAllocationHandle(&again, seen));
  CHECK(cuMemGetAllocationPropertiesFromHandle(&told, again));
  program.expect(told.type == properties.type && told.location.id == properties.location.id,
                 "a handle tells what its memory was made as");
  CHECK(cuMemRelease(again));
  CHECK(cuMemGetAccess(&allowed, &properties.location, address));
  program.expect(allowed == CU_MEM_ACCESS_FLAGS_PROT_READWRITE, "access is told as it was set");
  program.expect(cuMemMap(address, granularity, 0, pieces[1], 0) == CUDA_ERROR_INVALID_VALUE,
                 "what is mapped is not mapped over");
  program.expect(cuMemMap(address + 2 * granularity, granularity, granularity, pieces[1], 0) ==
                     CUDA_ERROR_NOT_SUPPORTED,
                 "memory is mapped as a whole");
  program.expect(cuMemUnmap(address + 3 * granularity, granularity / 2) == CUDA_ERROR_INVALID_VALUE,
                 "a mapping goes as a whole");
  program.expect(cuMemAddressFree(address, 4 * granularity) == CUDA_ERROR_INVALID_VALUE,
                 "addresses with mappings are not freed");
  program.expect(cuMemCreate(&again, granularity + 1, &properties, 0) == CUDA_ERROR_INVALID_VALUE,
                 "physical memory comes in granules");

  // A released handle's memory lives as long as it is mapped; a plain upload is in it at once.
  const std::vector<int> sent(granularity / sizeof(int), 99);
  CHECK(cuMemcpyHtoD(address + 3 * granularity, sent.data(), granularity));
  CHECK(cuMemUnmap(address + 3 * granularity, granularity));
  CHECK(cuMemMap(address + 2 * granularity, granularity, 0, pieces[1], 0));
  CHECK(cuMemSetAccess(address + 2 * granularity, granularity, &access, 1));
  CHECK(cuMemRelease(pieces[1]));
  program.expect(download(address + 2 * granularity, sent.size()) == sent,
                 "an upload before the unmapping is in the memory");
  CHECK(cuMemUnmap(address, granularity));
  CHECK(cuMemUnmap(address + 2 * granularity, granularity));
  CHECK(cuMemRelease(pieces[0]));
  CHECK(cuMemAddressFree(address, 4 * granularity));

  // As allocators do that let segments grow: far more addresses than memory, several times.
  CUdeviceptr wide[4] = {};
  for (CUdeviceptr& one : wide) {
    CHECK(cuMemAddressReserve(&one, kWide, 0, 0, 0));
    CHECK(cuMemCreate(&pieces[0], granularity, &properties, 0));
    CHECK(cuMemMap(one + kWide - granularity, granularity, 0, pieces[0], 0));
    CHECK(cuMemSetAccess(one + kWide - granularity, granularity, &access, 1));
    CHECK(cuMemsetD32(one + kWide - granularity, 5, 100));
    program.expect(download(one + kWide - granularity, 100) == std::vector<int>(100, 5),
                   "memory lies at the end of a wide range");
    CHECK(cuMemUnmap(one + kWide - granularity, granularity));
    CHECK(cuMemRelease(pieces[0]));
  }
  for (const CUdeviceptr one : wide) CHECK(cuMemAddressFree(one, kWide));
  CHECK(cuMemAddressReserve(&address, kWidest, 0, 0, 0));
  CHECK(cuMemAddressFree(address, kWidest));
  return program.finish();
}
