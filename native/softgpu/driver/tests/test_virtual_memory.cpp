// Virtual memory management: ranges, mappings, aliases, sharing.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include "support.hpp"

namespace {

constexpr size_t kGranule = 2 << 20;

CUmemAllocationProp properties() {
  CUmemAllocationProp p{};
  p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  p.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  p.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  return p;
}

CUmemAccessDesc access(CUdevice device = 0) {
  CUmemAccessDesc a{};
  a.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  a.location.id = device;
  a.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  return a;
}

CUdeviceptr map(CUmemGenericAllocationHandle handle, size_t bytes) {
  CUdeviceptr base = 0;
  CUmemAccessDesc a = access();
  OK(cuMemAddressReserve(&base, bytes, 0, 0, 0));
  OK(cuMemMap(base, bytes, 0, handle, 0));
  OK(cuMemSetAccess(base, bytes, &a, 1));
  return base;
}

}  // namespace

TEST_CASE("a hint is honoured exactly, also for a window of a TiB") {
  OwnContext own;
  CUdeviceptr base = 0, second = 0;
  constexpr CUdeviceptr kHint = 0x2000'0000'0000;
  OK(cuMemAddressReserve(&base, size_t{1} << 40, 0, kHint, 0));
  CHECK(base == kHint);
  OK(cuMemAddressReserve(&second, kGranule, 0, kHint, 0));
  CHECK(second != kHint);
  OK(cuMemAddressFree(base, size_t{1} << 40));
  OK(cuMemAddressFree(second, kGranule));
  CHECK(cuMemAddressFree(second, kGranule) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("mapped memory works, and faults once it is unmapped") {
  OwnContext own;
  CUfunction f = kernel(load(kKernels), "store");
  CUmemAllocationProp p = properties();
  CUmemGenericAllocationHandle handle;
  size_t before = 0, now = 0, total = 0;
  OK(cuMemGetInfo(&before, &total));
  OK(cuMemCreate(&handle, 2 * kGranule, &p, 0));
  OK(cuMemGetInfo(&now, &total));
  CHECK(before - now == 2 * kGranule);
  CUdeviceptr base = map(handle, 2 * kGranule);
  OK(run_one(f, nullptr, base + kGranule, 12u));
  CHECK(read<unsigned>(base + kGranule) == 12);
  OK(cuMemRelease(handle));
  CHECK(read<unsigned>(base + kGranule) == 12);  // the mapping keeps it
  CHECK(cuMemAddressFree(base, 2 * kGranule) == CUDA_ERROR_INVALID_VALUE);
  OK(cuMemUnmap(base, 2 * kGranule));
  OK(cuMemGetInfo(&now, &total));
  CHECK(before == now);
  unsigned value = 0;
  CHECK(cuMemcpyDtoH(&value, base, 4) == CUDA_ERROR_INVALID_VALUE);
  OK(run_one(f, nullptr, base, 1u));
  CHECK(cuCtxSynchronize() == CUDA_ERROR_ILLEGAL_ADDRESS);
}

TEST_CASE("nothing can be reached before access is set") {
  OwnContext own;
  CUmemAllocationProp p = properties();
  CUmemGenericAllocationHandle handle;
  CUdeviceptr base = 0;
  OK(cuMemCreate(&handle, kGranule, &p, 0));
  OK(cuMemAddressReserve(&base, kGranule, 0, 0, 0));
  OK(cuMemMap(base, kGranule, 0, handle, 0));
  CHECK(cuMemsetD8(base, 1, 4) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuMemMap(base, kGranule, 0, handle, 0) == CUDA_ERROR_INVALID_VALUE);
  CUmemAccessDesc a = access();
  OK(cuMemSetAccess(base, kGranule, &a, 1));
  OK(cuMemsetD8(base, 1, 4));
  OK(cuCtxSynchronize());
  OK(cuMemUnmap(base, kGranule));
  OK(cuMemAddressFree(base, kGranule));
  OK(cuMemRelease(handle));
  CHECK(cuMemRelease(handle) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("one memory at two addresses is one memory, also through a file descriptor") {
  OwnContext own;
  CUmemAllocationProp p = properties();
  CUmemGenericAllocationHandle handle, imported;
  OK(cuMemCreate(&handle, kGranule, &p, 0));
  int fd = -1;
  OK(cuMemExportToShareableHandle(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
  OK(cuMemImportFromShareableHandle(&imported, reinterpret_cast<void*>(static_cast<intptr_t>(fd)),
                                    CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
  close(fd);
  CUdeviceptr first = map(handle, kGranule), second = map(handle, kGranule);
  CUdeviceptr third = map(imported, kGranule);
  OK(cuMemsetD32(first, 99, 1));
  CHECK(read<unsigned>(second) == 99);
  CHECK(read<unsigned>(third) == 99);
}

TEST_CASE("an unmap does not pull pages from under a running kernel") {
  OwnContext own;
  CUmodule module = load(kKernels);
  CUmemAllocationProp p = properties();
  CUmemGenericAllocationHandle handle;
  OK(cuMemCreate(&handle, kGranule, &p, 0));
  CUdeviceptr base = map(handle, kGranule), alias = map(handle, kGranule);
  OK(cuMemsetD32(base, 0, 1));
  OK(cuCtxSynchronize());
  CUstream stream;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  OK(run_one(kernel(module, "spin"), stream, base));
  OK(cuMemUnmap(base, kGranule));
  OK(cuMemcpyHtoD(alias, "\1\0\0", 4));  // lets the kernel end, if it did not fault before
  CUresult result = cuStreamSynchronize(stream);
  bool acceptable = result == CUDA_SUCCESS || result == CUDA_ERROR_ILLEGAL_ADDRESS;
  CHECK(acceptable);
}

TEST_CASE("mappings side by side are one range for copies") {
  OwnContext own;
  CUmemAllocationProp p = properties();
  CUmemGenericAllocationHandle a, b;
  CUdeviceptr base = 0;
  CUmemAccessDesc d = access();
  OK(cuMemCreate(&a, kGranule, &p, 0));
  OK(cuMemCreate(&b, kGranule, &p, 0));
  OK(cuMemAddressReserve(&base, 2 * kGranule, 0, 0, 0));
  OK(cuMemMap(base, kGranule, 0, a, 0));
  OK(cuMemMap(base + kGranule, kGranule, 0, b, 0));
  OK(cuMemSetAccess(base, 2 * kGranule, &d, 1));
  OK(cuMemsetD8(base, 7, 2 * kGranule));
  CHECK(read<unsigned char>(base + 2 * kGranule - 1) == 7);
  CHECK(cuMemUnmap(base, kGranule / 2) == CUDA_ERROR_INVALID_VALUE);
  OK(cuMemUnmap(base, 2 * kGranule));
}
