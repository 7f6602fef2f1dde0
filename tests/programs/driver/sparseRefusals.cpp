// What cuMemMapArrayAsync answers to operations that are not as they should be.
// SPDX-License-Identifier: Apache-2.0
#include <functional>

#include "sparse.hpp"

int main(int argc, char** argv) {
  Program program("sparseRefusals", argc, argv);
  const Device device;
  const auto descriptor = described(512, 512, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE);
  CUarray array = nullptr;
  CUarray level = nullptr;
  CUmipmappedArray levels = nullptr;
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuArray3DCreate(&array, &descriptor));
  CHECK(cuMipmappedArrayCreate(&levels, &descriptor, 5));
  CHECK(cuMipmappedArrayGetLevel(&level, levels, 0));
  const CUmemGenericAllocationHandle memory = tile_pool(device.device(), 2 << 20);
  CUmemAllocationProp ordinary{};
  ordinary.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  ordinary.location = {CU_MEM_LOCATION_TYPE_DEVICE, device.device()};
  CUmemGenericAllocationHandle other = 0;
  CHECK(cuMemCreate(&other, 2 << 20, &ordinary, 0));

  using Change = std::function<void(CUarrayMapInfo&)>;
  const auto tail = [](CUarrayMapInfo& info, unsigned layer, unsigned long long offset,
                       unsigned long long size) {
    info.subresourceType = CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_MIPTAIL;
    info.subresource.miptail = {layer, offset, size};
  };
  const auto mipmapped = [levels](CUarrayMapInfo& info) {
    info.resourceType = CU_RESOURCE_TYPE_MIPMAPPED_ARRAY;
    info.resource.mipmap = levels;
  };
  const Change changes[] = {
      [](auto&) {},
      [](auto& i) { i.deviceBitMask = 0; },
      [](auto& i) { i.deviceBitMask = 3; },
      [](auto& i) { i.flags = 1; },
      [](auto& i) { i.offset = 1; },
      [](auto& i) { i.offset = 2 << 20; },
      [](auto& i) { i.subresource.sparseLevel.offsetX = 1; },
      [](auto& i) { i.subresource.sparseLevel.offsetX = 512; },
      [](auto& i) { i.subresource.sparseLevel.offsetZ = 1; },
      [](auto& i) { i.subresource.sparseLevel.extentWidth = 1; },
      [](auto& i) { i.subresource.sparseLevel.extentWidth = 1024; },
      [](auto& i) { i.subresource.sparseLevel.extentHeight = 0; },
      [](auto& i) { i.subresource.sparseLevel.extentDepth = 0; },
      [](auto& i) { i.subresource.sparseLevel.level = 1; },
      [](auto& i) { i.subresource.sparseLevel.layer = 1; },
      [&](auto& i) { tail(i, 0, 0, kTileBytes); },
      [](auto& i) { i.resourceType = CU_RESOURCE_TYPE_LINEAR; },
      [](auto& i) { i.memOperationType = static_cast<CUmemOperationType>(3); },
      [](auto& i) { i.memHandleType = static_cast<CUmemHandleType>(1); },
      [&](auto& i) { i.memHandle.memHandle = other; },
      [&](auto& i) { i.resource.array = level; },
      [&](auto& i) { mipmapped(i); },
      [&](auto& i) {
        mipmapped(i);
        i.subresource.sparseLevel.level = 3;
      },
      [&](auto& i) {
        mipmapped(i);
        tail(i, 0, 0, kTileBytes);
      },
      [&](auto& i) {
        mipmapped(i);
        tail(i, 0, 0, 100);
      },
      [&](auto& i) {
        mipmapped(i);
        tail(i, 0, kTileBytes, kTileBytes);
      },
      [&](auto& i) {
        mipmapped(i);
        tail(i, 1, 0, kTileBytes);
      },
  };
  std::vector<int> answers;
  for (const Change& change : changes) {
    CUarrayMapInfo info = box(array, {128, 0, 0}, {128, 128, 1}, memory, kTileBytes);
    change(info);
    answers.push_back(cuMemMapArrayAsync(&info, 1, stream));
    std::printf("operation %zu: %d\n", answers.size() - 1, answers.back());
    answers.push_back(cuStreamSynchronize(stream));
  }
  program.save(answers);
  CHECK(cuMemRelease(other));
  CHECK(cuMemRelease(memory));
  CHECK(cuArrayDestroy(array));
  CHECK(cuMipmappedArrayDestroy(levels));
  CHECK(cuStreamDestroy(stream));
  return program.finish();
}
