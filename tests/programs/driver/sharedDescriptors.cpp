// Physical memory and pools that two processes share by descriptors, sent over a socket.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>

#include "driver.hpp"
#include "processes.hpp"

namespace {

constexpr CUmemAllocationHandleType kDescriptor = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
constexpr size_t kBytes = 4 << 20;
constexpr int kCount = 20'000;
constexpr int kPooled = 5000;

void* as_handle(int descriptor) {
  return reinterpret_cast<void*>(static_cast<intptr_t>(descriptor));
}

CUmemAllocationProp properties_of(const Device& device) {
  CUmemAllocationProp properties{};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = device.device();
  properties.requestedHandleTypes = kDescriptor;
  return properties;
}

CUdeviceptr map(const Device& device, CUmemGenericAllocationHandle memory) {
  CUdeviceptr address = 0;
  CUmemAccessDesc access{};
  access.location = {CU_MEM_LOCATION_TYPE_DEVICE, device.device()};
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  CHECK(cuMemAddressReserve(&address, kBytes, 0, 0, 0));
  CHECK(cuMemMap(address, kBytes, 0, memory, 0));
  CHECK(cuMemSetAccess(address, kBytes, &access, 1));
  return address;
}

void unmap(CUdeviceptr address) {
  CHECK(cuMemUnmap(address, kBytes));
  CHECK(cuMemAddressFree(address, kBytes));
}

// ---- the other process --------------------------------------------------------------------------

void import_physical(Program& program, const Device& device, const Partner& parent) {
  int descriptor = -1;
  parent.receive<char>(&descriptor);
  CUmemGenericAllocationHandle memory = 0;
  CHECK(cuMemImportFromShareableHandle(&memory, as_handle(descriptor), kDescriptor));
  close(descriptor);
  CUmemAllocationProp told{};
  CHECK(cuMemGetAllocationPropertiesFromHandle(&told, memory));
  program.expect(told.type == CU_MEM_ALLOCATION_TYPE_PINNED && told.location.id == device.device(),
                 "imported memory says where it lies");
  const CUdeviceptr address = map(device, memory);
  CHECK(cuMemRelease(memory));
  device.launch_step(address, kCount, 7, nullptr);
  CHECK(cuCtxSynchronize());
  parent.step();
  // The exporter has no more of it: it stays as long as we have it.
  parent.await_step();
  program.expect(download(address, kCount) == std::vector<int>(kCount, 36),
                 "memory outlives its exporter's use of it");
  unmap(address);
}

void import_pool(Program& program, const Device& device, const Partner& parent) {
  int descriptor = -1;
  auto data = parent.receive<CUmemPoolPtrExportData>(&descriptor);
  CUmemoryPool pool = nullptr;
  CUdeviceptr memory = 0, none = 0;
  CHECK(cuMemPoolImportFromShareableHandle(&pool, as_handle(descriptor), kDescriptor, 0));
  close(descriptor);
  CHECK(cuMemPoolImportPointer(&memory, pool, &data));
  device.launch_step(memory, kPooled, 2, nullptr);
  CHECK(cuCtxSynchronize());
  program.expect(cuMemAllocFromPoolAsync(&none, 4096, pool, nullptr) != CUDA_SUCCESS,
                 "nothing is allocated from another process's pool");
  program.expect(cuDeviceSetMemPool(device.device(), pool) != CUDA_SUCCESS,
                 "which is no device's current pool");
  CHECK(cuMemFree(memory));
  CHECK(cuMemPoolDestroy(pool));
  parent.step();
}

// ---- this one -----------------------------------------------------------------------------------

void wrong_uses(Program& program, const Device& device, CUmemGenericAllocationHandle memory) {
  CUmemAllocationProp plain = properties_of(device);
  plain.requestedHandleTypes = CU_MEM_HANDLE_TYPE_NONE;
  CUmemGenericAllocationHandle unshared = 0, imported = 0;
  CHECK(cuMemCreate(&unshared, kBytes, &plain, 0));
  const int other = open("/dev/null", O_RDONLY);
  int descriptor = -1;
  const int codes[] = {
      cuMemExportToShareableHandle(&descriptor, unshared, kDescriptor, 0),
      cuMemExportToShareableHandle(nullptr, memory, kDescriptor, 0),
      cuMemImportFromShareableHandle(&imported, as_handle(other), kDescriptor) != CUDA_SUCCESS,
      cuMemImportFromShareableHandle(&imported, as_handle(9999), kDescriptor) != CUDA_SUCCESS,
  };
  for (const int code : codes) std::printf("%d ", code);
  std::printf("\n");
  program.save(codes, sizeof codes);
  close(other);
  CHECK(cuMemRelease(unshared));
}

void share_physical(Program& program, const Device& device, const Partner& child) {
  const CUmemAllocationProp properties = properties_of(device);
  CUmemGenericAllocationHandle memory = 0, own = 0;
  CHECK(cuMemCreate(&memory, kBytes, &properties, 0));
  wrong_uses(program, device, memory);
  int descriptor = -1;
  CHECK(cuMemExportToShareableHandle(&descriptor, memory, kDescriptor, 0));
  const CUdeviceptr address = map(device, memory);
  CHECK(cuMemRelease(memory));
  CHECK(cuMemsetD32(address, 5, kCount));
  CHECK(cuCtxSynchronize());
  // It may come back to where it was exported.
  CHECK(cuMemImportFromShareableHandle(&own, as_handle(descriptor), kDescriptor));
  const CUdeviceptr beside = map(device, own);
  CHECK(cuMemRelease(own));
  child.send('f', descriptor);
  close(descriptor);
  child.await_step();
  const std::vector<int> values = download(beside, kCount);
  program.expect(values == std::vector<int>(kCount, 36), "all three mappings are one memory");
  program.save(values);
  unmap(address);
  unmap(beside);
  CHECK(cuCtxSynchronize());
  child.step();
}

void share_pool(Program& program, const Device& device, const Partner& child) {
  CUmemPoolProps properties{};
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.handleTypes = kDescriptor;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, device.device()};
  CUmemoryPool pool = nullptr, plain = nullptr;
  CHECK(cuMemPoolCreate(&pool, &properties));
  CUdeviceptr memory = 0, other = 0;
  CHECK(cuMemAllocFromPoolAsync(&memory, kPooled * sizeof(int), pool, nullptr));
  CHECK(cuMemAllocAsync(&other, 4096, nullptr));
  CHECK(cuMemsetD32(memory, 10, kPooled));
  CHECK(cuCtxSynchronize());
  CUmemPoolPtrExportData data{};
  int descriptor = -1;
  CHECK(cuDeviceGetDefaultMemPool(&plain, device.device()));
  program.expect(
      cuMemPoolExportPointer(&data, other) != CUDA_SUCCESS &&
          cuMemPoolExportToShareableHandle(&descriptor, plain, kDescriptor, 0) != CUDA_SUCCESS,
      "the default pool is not shared");
  CHECK(cuMemPoolExportToShareableHandle(&descriptor, pool, kDescriptor, 0));
  CHECK(cuMemPoolExportPointer(&data, memory));
  child.send(data, descriptor);
  close(descriptor);
  child.await_step();
  const std::vector<int> values = download(memory, kPooled);
  program.expect(values == std::vector<int>(kPooled, 21), "memory of a pool is shared");
  program.save(values);
  CHECK(cuMemFreeAsync(memory, nullptr));
  CHECK(cuMemFreeAsync(other, nullptr));
  CHECK(cuCtxSynchronize());
  CHECK(cuMemPoolDestroy(pool));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("sharedDescriptors", argc, argv);
  const Device device;
  if (std::strcmp(program.text("role", ""), "importer") == 0) {
    const Partner parent(static_cast<int>(program.number("partner", -1)));
    import_physical(program, device, parent);
    import_pool(program, device, parent);
    return program.finish();
  }
  const Partner child(argv[0], "importer");
  share_physical(program, device, child);
  share_pool(program, device, child);
  program.expect(child.wait() == 0, "the other process is content");
  return program.finish();
}
