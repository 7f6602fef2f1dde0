// Every kind of memory counts: while a piece of it is held another piece does not fit.
// SPDX-License-Identifier: Apache-2.0
//
// --mib N: the size of a piece, more than half of what the program may have.
#include "sparse.hpp"

namespace {

bool fits(size_t piece_bytes) {
  CUdeviceptr address = 0;
  const CUresult result = cuMemAlloc(&address, piece_bytes);
  if (result == CUDA_SUCCESS) CHECK(cuMemFree(address));
  return result == CUDA_SUCCESS;
}

void linear(Program& program, size_t piece_bytes) {
  const CUdeviceptr held = allocate(piece_bytes);
  program.expect(!fits(piece_bytes), "what a context allocates counts");
  CHECK(cuMemFree(held));
  program.expect(fits(piece_bytes), "what it freed can be had again");
}

void ordered(Program& program, size_t piece_bytes, CUstream stream, CUmemoryPool pool) {
  CUdeviceptr held = 0;
  CHECK(pool != nullptr ? cuMemAllocFromPoolAsync(&held, piece_bytes, pool, stream)
                        : cuMemAllocAsync(&held, piece_bytes, stream));
  CHECK(cuMemsetD8Async(held, 1, piece_bytes > 4096 ? 4096 : piece_bytes, stream));
  program.expect(!fits(piece_bytes), "what a stream allocates counts");
  CHECK(cuMemFreeAsync(held, stream));
  CHECK(cuStreamSynchronize(stream));
  program.expect(fits(piece_bytes), "what it freed can be had again");
}

// In a part of the device: its memory is the device's.
void green(Program& program, const Device& device, size_t piece_bytes) {
  CUdevResource whole{};
  CUdevResource part{};
  CUdevResourceDesc descriptor = nullptr;
  CUgreenCtx context = nullptr;
  CUcontext current = nullptr;
  CUstream stream = nullptr;
  CUmemoryPool pool = nullptr;
  CUmemPoolProps properties{};
  unsigned groups = 1;
  properties.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.location = {CU_MEM_LOCATION_TYPE_DEVICE, device.device()};
  CHECK(cuDeviceGetDevResource(device.device(), &whole, CU_DEV_RESOURCE_TYPE_SM));
  CHECK(
      cuDevSmResourceSplitByCount(&part, &groups, &whole, nullptr, 0, whole.sm.minSmPartitionSize));
  CHECK(cuDevResourceGenerateDesc(&descriptor, &part, 1));
  CHECK(cuGreenCtxCreate(&context, descriptor, device.device(), CU_GREEN_CTX_DEFAULT_STREAM));
  CHECK(cuGreenCtxStreamCreate(&stream, context, CU_STREAM_NON_BLOCKING, 0));
  CHECK(cuCtxFromGreenCtx(&current, context));
  CHECK(cuMemPoolCreate(&pool, &properties));
  CHECK(cuCtxPushCurrent(current));
  linear(program, piece_bytes);
  ordered(program, piece_bytes, stream, nullptr);
  ordered(program, piece_bytes, stream, pool);
  ordered(program, piece_bytes, nullptr, nullptr);
  CHECK(cuCtxPopCurrent(nullptr));
  CHECK(cuMemPoolDestroy(pool));
  CHECK(cuStreamDestroy(stream));
  CHECK(cuGreenCtxDestroy(context));
}

// Of the memory one tile is used, and the program has no handle of it any more.
void tiles(Program& program, const Device& device, size_t piece_bytes) {
  const auto descriptor = described(512, 512, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE);
  CUstream stream = nullptr;
  CUarray array = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuArray3DCreate(&array, &descriptor));
  program.expect(fits(piece_bytes), "an array without tiles has no memory");
  for (const bool unmapped : {true, false}) {
    const CUmemGenericAllocationHandle memory = tile_pool(device.device(), piece_bytes);
    CUarrayMapInfo info = box(array, {0, 0, 0}, {128, 128, 1}, memory, 0);
    CHECK(cuMemMapArrayAsync(&info, 1, stream));
    CHECK(cuMemRelease(memory));
    CHECK(cuStreamSynchronize(stream));
    program.expect(!fits(piece_bytes), "memory that a tile has counts");
    if (unmapped) {
      info = box(array, {0, 0, 0}, {128, 128, 1}, 0, 0);
      CHECK(cuMemMapArrayAsync(&info, 1, stream));
      CHECK(cuStreamSynchronize(stream));
    } else {
      CHECK(cuArrayDestroy(array));
    }
    program.expect(fits(piece_bytes), "what no tile has can be had again");
  }
  CHECK(cuStreamDestroy(stream));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("countedMemory", argc, argv);
  const size_t piece_bytes = static_cast<size_t>(program.number("mib", 300)) << 20;
  const Device device;
  linear(program, piece_bytes);
  ordered(program, piece_bytes, nullptr, nullptr);
  green(program, device, piece_bytes);
  tiles(program, device, piece_bytes);
  return program.finish();
}
