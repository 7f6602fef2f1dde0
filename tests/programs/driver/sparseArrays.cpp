// Arrays whose memory the program maps: how they are divided, tiles with and without memory, mip
// tails, memory that is used twice, exchanged, released.
// SPDX-License-Identifier: Apache-2.0
#include <functional>

#include "sparse.hpp"

namespace {

constexpr size_t kSide = 512;
constexpr unsigned kTile = 128;  // of 32-bit elements
constexpr size_t kPool = 2 << 20;

// row(out, texture, y): out[x] = element (x, y) for 512 x.
const char* const kRow = R"(
.version 7.0
.target sm_70
.address_size 64

.visible .entry row(.param .u64 out, .param .u64 texture, .param .u32 y) {
  .reg .b32 %r<8>;
  .reg .f32 %f<5>;
  .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [out];
  ld.param.u64 %rd2, [texture];
  ld.param.u32 %r1, [y];
  mov.u32 %r2, %tid.x;
  tex.2d.v4.f32.s32 {%f1, %f2, %f3, %f4}, [%rd2, {%r2, %r1}];
  mul.wide.u32 %rd3, %r2, 4;
  add.s64 %rd4, %rd1, %rd3;
  st.global.f32 [%rd4], %f1;
  ret;
}
)";

struct Division {
  size_t width, height, depth;
  CUarray_format format;
  unsigned channels, flags;
  unsigned tile[3];
  unsigned tail;  // of five levels the first that is in the tail
  unsigned long long tail_size;
  unsigned single;  // flags, of the array and of the levels
};

bool is(const CUDA_ARRAY_SPARSE_PROPERTIES& told, const Division& one) {
  return told.tileExtent.width == one.tile[0] && told.tileExtent.height == one.tile[1] &&
         told.tileExtent.depth == one.tile[2] && told.flags == one.single;
}

void divisions(Program& program) {
  constexpr unsigned kSparse = CUDA_ARRAY3D_SPARSE;
  const Division all[] = {
      {512, 512, 0, CU_AD_FORMAT_FLOAT, 1, kSparse, {128, 128, 1}, 3, 65536, 0},
      {512, 512, 0, CU_AD_FORMAT_FLOAT, 4, kSparse, {64, 64, 1}, 4, 65536, 0},
      {512, 512, 0, CU_AD_FORMAT_FLOAT, 2, kSparse, {128, 64, 1}, 3, 65536, 0},
      {512, 512, 0, CU_AD_FORMAT_UNSIGNED_INT8, 1, kSparse, {256, 256, 1}, 2, 65536, 0},
      {512, 512, 0, CU_AD_FORMAT_HALF, 1, kSparse, {256, 128, 1}, 2, 65536, 0},
      {128, 128, 64, CU_AD_FORMAT_FLOAT, 1, kSparse, {32, 32, 16}, 3, 65536, 0},
      {128, 128, 64, CU_AD_FORMAT_UNSIGNED_INT8, 1, kSparse, {64, 32, 32}, 2, 65536, 0},
      {128, 128, 64, CU_AD_FORMAT_FLOAT, 4, kSparse, {16, 16, 16}, 3, 65536, 0},
      {512,
       512,
       4,
       CU_AD_FORMAT_FLOAT,
       1,
       kSparse | CUDA_ARRAY3D_LAYERED,
       {128, 128, 1},
       3,
       65536,
       0},
      {100, 30, 0, CU_AD_FORMAT_FLOAT, 1, kSparse, {128, 128, 1}, 0, 65536, 1},
      {300, 200, 0, CU_AD_FORMAT_FLOAT, 1, kSparse, {128, 128, 1}, 1, 131072, 0},
  };
  for (const Division& one : all) {
    const auto descriptor =
        described(one.width, one.height, one.depth, one.format, one.channels, one.flags);
    CUarray array = nullptr;
    CUarray level = nullptr;
    CUmipmappedArray levels = nullptr;
    CUDA_ARRAY_SPARSE_PROPERTIES flat{};
    CUDA_ARRAY_SPARSE_PROPERTIES told{};
    CHECK(cuArray3DCreate(&array, &descriptor));
    CHECK(cuArrayGetSparseProperties(&flat, array));
    program.expect(is(flat, one) && flat.miptailFirstLevel == 0 &&
                       flat.miptailSize == (one.single != 0 ? one.tail_size : 0),
                   "an array says how it is divided");
    CHECK(cuMipmappedArrayCreate(&levels, &descriptor, 5));
    CHECK(cuMipmappedArrayGetSparseProperties(&told, levels));
    program.expect(
        is(told, one) && told.miptailFirstLevel == one.tail && told.miptailSize == one.tail_size,
        "a mipmapped array says how it is divided");
    CHECK(cuMipmappedArrayGetLevel(&level, levels, 1));
    CUDA_ARRAY_MEMORY_REQUIREMENTS needs{};
    program.expect(cuArrayGetSparseProperties(&told, level) == CUDA_ERROR_INVALID_VALUE &&
                       cuArrayGetMemoryRequirements(&needs, array, 0) == CUDA_ERROR_INVALID_VALUE &&
                       cuArrayGetSparseProperties(nullptr, array) == CUDA_ERROR_INVALID_VALUE &&
                       cuArrayGetSparseProperties(&told, nullptr) == CUDA_ERROR_INVALID_VALUE,
                   "a level does not, and the array has no size of its own");
    CHECK(cuArrayDestroy(array));
    CHECK(cuMipmappedArrayDestroy(levels));
  }
  const CUDA_ARRAY3D_DESCRIPTOR refused[] = {
      described(512, 0, 0, CU_AD_FORMAT_FLOAT, 1, kSparse),
      described(512, 512, 6, CU_AD_FORMAT_FLOAT, 1, kSparse | CUDA_ARRAY3D_CUBEMAP),
      described(512, 512, 0, CU_AD_FORMAT_FLOAT, 1, kSparse | CUDA_ARRAY3D_SURFACE_LDST)};
  for (const CUDA_ARRAY3D_DESCRIPTOR& descriptor : refused) {
    CUarray array = nullptr;
    CUmipmappedArray levels = nullptr;
    program.expect(cuArray3DCreate(&array, &descriptor) == CUDA_ERROR_INVALID_VALUE &&
                       cuMipmappedArrayCreate(&levels, &descriptor, 5) == CUDA_ERROR_INVALID_VALUE,
                   "lines, cubes and surfaces are never sparse");
  }
}

// `expected(x, y)`: what the plane holds.
bool holds(const std::vector<float>& plane, const std::function<float(size_t, size_t)>& expected) {
  for (size_t i = 0; i < plane.size(); ++i) {
    if (plane[i] != expected(i % kSide, i / kSide)) return false;
  }
  return true;
}

void tiles(Program& program, CUdevice device, CUstream stream) {
  const auto descriptor = described(kSide, kSide, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE);
  CUarray array = nullptr;
  CHECK(cuArray3DCreate(&array, &descriptor));
  const CUmemGenericAllocationHandle memory = tile_pool(device, kPool);
  const std::vector<float> first = counted(kSide * kSide, 1);
  const auto old = [&](size_t x, size_t y) { return first[y * kSide + x]; };
  // Two tiles by name, two more as one box.
  CUarrayMapInfo some[] = {
      box(array, {0, 0, 0}, {kTile, kTile, 1}, memory, 0),
      box(array, {384, 128, 0}, {kTile, kTile, 1}, memory, kTileBytes),
      box(array, {128, 384, 0}, {2 * kTile, kTile, 1}, memory, 3 * kTileBytes)};
  CHECK(cuMemMapArrayAsync(some, 3, stream));
  CHECK(cuStreamSynchronize(stream));
  fill(array, first, kSide, kSide);
  const auto has_memory = [](size_t x, size_t y) {
    const size_t tile = y / kTile * 4 + x / kTile;
    return tile == 0 || tile == 7 || tile == 13 || tile == 14;
  };
  std::vector<float> plane = contents(array, kSide, kSide);
  program.expect(holds(plane, [&](size_t x, size_t y) { return has_memory(x, y) ? old(x, y) : 0; }),
                 "what has memory keeps what is written, the rest is zero");
  program.save(plane);

  // The same memory at two places; the box's second tile loses its own.
  CUarrayMapInfo twice[] = {box(array, {256, 0, 0}, {kTile, kTile, 1}, memory, 0),
                            box(array, {256, 384, 0}, {kTile, kTile, 1}, 0, 0)};
  CHECK(cuMemMapArrayAsync(twice, 2, stream));
  CHECK(cuStreamSynchronize(stream));
  plane = contents(array, kSide, kSide);
  program.expect(holds(plane,
                       [&](size_t x, size_t y) {
                         const size_t tile = y / kTile * 4 + x / kTile;
                         if (tile == 2) return old(x - 256, y);
                         return has_memory(x, y) && tile != 14 ? old(x, y) : 0;
                       }),
                 "one tile of memory is seen at two places");
  // Memory keeps what is in it while nothing shows it.
  CUarrayMapInfo back[] = {box(array, {0, 0, 0}, {kSide, kSide, 1}, 0, 0),
                           box(array, {256, 384, 0}, {kTile, kTile, 1}, memory, 4 * kTileBytes)};
  CHECK(cuMemMapArrayAsync(back, 2, stream));
  CHECK(cuStreamSynchronize(stream));
  // Used by the array alone from here on.
  CHECK(cuMemRelease(memory));
  plane = contents(array, kSide, kSide);
  program.expect(
      holds(plane,
            [&](size_t x, size_t y) { return x / kTile == 2 && y / kTile == 3 ? old(x, y) : 0; }),
      "memory that is released stays with the tiles that have it");
  CHECK(cuArrayDestroy(array));
}

// More operations at once than go in one piece; each of sixteen tiles gets another's memory often.
void many(Program& program, CUdevice device, CUstream stream) {
  const auto descriptor = described(kSide, kSide, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE);
  CUarray array = nullptr;
  CHECK(cuArray3DCreate(&array, &descriptor));
  const CUmemGenericAllocationHandle memory = tile_pool(device, kPool);
  std::vector<CUarrayMapInfo> infos;
  for (unsigned i = 0; i < 1296; ++i) {
    const unsigned tile = i % 16;
    infos.push_back(box(array, {tile % 4 * kTile, tile / 4 * kTile, 0}, {kTile, kTile, 1}, memory,
                        (tile + i / 16) % 32 * kTileBytes));
  }
  CHECK(cuMemMapArrayAsync(infos.data(), static_cast<unsigned>(infos.size()), stream));
  CHECK(cuStreamSynchronize(stream));
  const std::vector<float> values = counted(kSide * kSide, 7);
  fill(array, values, kSide, kSide);
  const std::vector<float> plane = contents(array, kSide, kSide);
  program.expect(plane == values, "many tiles are mapped at once");
  program.save(plane);
  CHECK(cuArrayDestroy(array));
  CHECK(cuMemRelease(memory));
}

void kernels(Program& program, CUdevice device, CUstream stream) {
  const auto descriptor = described(kSide, kSide, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE);
  CUmodule module = nullptr;
  CUfunction row = nullptr;
  CUarray array = nullptr;
  CHECK(cuModuleLoadData(&module, kRow));
  CHECK(cuModuleGetFunction(&row, module, "row"));
  CHECK(cuArray3DCreate(&array, &descriptor));
  CUDA_RESOURCE_DESC resource{};
  resource.resType = CU_RESOURCE_TYPE_ARRAY;
  resource.res.array.hArray = array;
  CUDA_TEXTURE_DESC nearest{};
  nearest.addressMode[0] = nearest.addressMode[1] = CU_TR_ADDRESS_MODE_CLAMP;
  CUtexObject texture = 0;
  CHECK(cuTexObjectCreate(&texture, &resource, &nearest, nullptr));
  const CUmemGenericAllocationHandle memory = tile_pool(device, kPool);
  CUdeviceptr out = allocate(3 * kSide * sizeof(float));
  unsigned y = 200;
  const auto look = [&](int number) {
    CUdeviceptr to = out + static_cast<size_t>(number) * kSide * sizeof(float);
    void* arguments[] = {&to, &texture, &y};
    CHECK(cuLaunchKernel(row, 1, 1, 1, kSide, 1, 1, 0, stream, arguments, nullptr));
  };
  // All in the order of one stream: nothing, then one tile, then another with the same memory.
  const std::vector<float> values = counted(kTile * kTile, 3);
  CUarrayMapInfo second = box(array, {128, 128, 0}, {kTile, kTile, 1}, memory, 0);
  CUarrayMapInfo moved[] = {box(array, {128, 128, 0}, {kTile, kTile, 1}, 0, 0),
                            box(array, {384, 128, 0}, {kTile, kTile, 1}, memory, 0)};
  look(0);
  CHECK(cuMemMapArrayAsync(&second, 1, stream));
  CUDA_MEMCPY3D copy = copy_of(kTile, kTile, 1);
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = values.data();
  copy.srcPitch = kTile * sizeof(float);
  copy.srcHeight = kTile;
  copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
  copy.dstArray = array;
  copy.dstXInBytes = 128 * sizeof(float);
  copy.dstY = 128;
  CHECK(cuMemcpy3DAsync(&copy, stream));
  look(1);
  CHECK(cuMemMapArrayAsync(moved, 2, stream));
  look(2);
  CHECK(cuStreamSynchronize(stream));
  std::vector<float> seen(3 * kSide);
  CHECK(cuMemcpyDtoH(seen.data(), out, seen.size() * sizeof(float)));
  bool right = true;
  for (size_t i = 0; i < seen.size(); ++i) {
    const size_t look_at = i / kSide;
    const size_t x = i % kSide;
    const size_t from = look_at == 1 ? 128 : 384;
    const bool there = look_at != 0 && x >= from && x < from + kTile;
    const float expected = there ? values[(200 - 128) * kTile + x - from] : 0;
    right = right && seen[i] == expected;
  }
  program.expect(right, "kernels see tiles come and go in the order of their stream");
  program.save(seen);
  CHECK(cuTexObjectDestroy(texture));
  CHECK(cuMemFree(out));
  CHECK(cuArrayDestroy(array));
  CHECK(cuMemRelease(memory));
  CHECK(cuModuleUnload(module));
}

void shapes(Program& program, CUdevice device, CUstream stream) {
  const CUmemGenericAllocationHandle memory = tile_pool(device, kPool);
  // A volume: one of its tiles of 32 x 32 x 16, in the middle.
  auto descriptor = described(64, 64, 32, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE);
  CUarray array = nullptr;
  CHECK(cuArray3DCreate(&array, &descriptor));
  CUarrayMapInfo info = box(array, {32, 0, 16}, {32, 32, 16}, memory, 5 * kTileBytes);
  CHECK(cuMemMapArrayAsync(&info, 1, stream));
  CHECK(cuStreamSynchronize(stream));
  const std::vector<float> values = counted(64 * 64 * 32, 9);
  fill(array, values, 64, 64, 32);
  std::vector<float> found = contents(array, 64, 64, 32);
  bool right = true;
  for (size_t i = 0; i < found.size(); ++i) {
    const bool there = i % 64 >= 32 && i / 64 % 64 < 32 && i / 4096 >= 16;
    right = right && found[i] == (there ? values[i] : 0);
  }
  program.expect(right, "a volume has tiles of three dimensions");
  program.save(found);
  CHECK(cuArrayDestroy(array));
  // Layers: all of the third. They are whole tiles, for driver 580 shows others at wrong places.
  descriptor =
      described(256, 384, 4, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_LAYERED);
  CHECK(cuArray3DCreate(&array, &descriptor));
  info = box(array, {0, 0, 0}, {256, 384, 1}, memory, 0);
  info.subresource.sparseLevel.layer = 2;
  CHECK(cuMemMapArrayAsync(&info, 1, stream));
  CHECK(cuStreamSynchronize(stream));
  const std::vector<float> layers = counted(256 * 384 * 4, 2);
  fill(array, layers, 256, 384, 4);
  found = contents(array, 256, 384, 4);
  right = true;
  for (size_t i = 0; i < found.size(); ++i) {
    right = right && found[i] == (i / (256 * 384) == 2 ? layers[i] : 0);
  }
  program.expect(right, "a layer has its own tiles");
  program.save(found);
  CHECK(cuArrayDestroy(array));
  CHECK(cuMemRelease(memory));
}

void levels(Program& program, CUdevice device, CUstream stream) {
  const auto descriptor = described(kSide, kSide, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE);
  CUmipmappedArray mipmap = nullptr;
  CHECK(cuMipmappedArrayCreate(&mipmap, &descriptor, 5));
  const CUmemGenericAllocationHandle memory = tile_pool(device, kPool);
  CUDA_ARRAY_SPARSE_PROPERTIES told{};
  CHECK(cuMipmappedArrayGetSparseProperties(&told, mipmap));
  CUarrayMapInfo infos[2] = {box(nullptr, {128, 0, 0}, {kTile, kTile, 1}, memory, 0),
                             box(nullptr, {0, 0, 0}, {1, 1, 1}, memory, kTileBytes)};
  for (CUarrayMapInfo& info : infos) {
    info.resourceType = CU_RESOURCE_TYPE_MIPMAPPED_ARRAY;
    info.resource.mipmap = mipmap;
  }
  infos[0].subresource.sparseLevel.level = 1;
  infos[1].subresourceType = CU_ARRAY_SPARSE_SUBRESOURCE_TYPE_MIPTAIL;
  infos[1].subresource.miptail = {0, 0, told.miptailSize};
  CHECK(cuMemMapArrayAsync(infos, 2, stream));
  CHECK(cuStreamSynchronize(stream));
  for (unsigned i = 0; i < 5; ++i) {
    CUarray level = nullptr;
    CHECK(cuMipmappedArrayGetLevel(&level, mipmap, i));
    const size_t side = kSide >> i;
    fill(level, counted(side * side, static_cast<float>(i)), side, side);
  }
  for (unsigned i = 0; i < 5; ++i) {
    CUarray level = nullptr;
    CHECK(cuMipmappedArrayGetLevel(&level, mipmap, i));
    const size_t side = kSide >> i;
    const std::vector<float> values = counted(side * side, static_cast<float>(i));
    const std::vector<float> found = contents(level, side, side);
    bool right = true;
    for (size_t k = 0; k < found.size(); ++k) {
      const bool there = i >= 3 || (i == 1 && k % side >= 128 && k / side < 128);
      right = right && found[k] == (there ? values[k] : 0);
    }
    program.expect(right, "levels have tiles, and the smallest a tail for all of them");
    program.save(found);
  }
  CHECK(cuMipmappedArrayDestroy(mipmap));
  CHECK(cuMemRelease(memory));
}

// An array that is mapped as a whole.
void deferred(Program& program, CUdevice device, CUstream stream) {
  const auto descriptor =
      described(kSide, kSide, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_DEFERRED_MAPPING);
  CUarray array = nullptr;
  CUDA_ARRAY_SPARSE_PROPERTIES told{};
  CUDA_ARRAY_MEMORY_REQUIREMENTS needs{};
  CHECK(cuArray3DCreate(&array, &descriptor));
  CHECK(cuArrayGetMemoryRequirements(&needs, array, device));
  program.expect(needs.size == kSide * kSide * sizeof(float) && needs.alignment == kTileBytes &&
                     cuArrayGetSparseProperties(&told, array) == CUDA_ERROR_INVALID_VALUE,
                 "an array that is mapped as a whole says what it takes");
  const CUmemGenericAllocationHandle memory = tile_pool(device, kPool);
  CUarrayMapInfo info = box(array, {0, 0, 0}, {0, 0, 0}, memory, kTileBytes);
  CHECK(cuMemMapArrayAsync(&info, 1, stream));
  CHECK(cuStreamSynchronize(stream));
  const std::vector<float> values = counted(kSide * kSide, 4);
  fill(array, values, kSide, kSide);
  program.expect(contents(array, kSide, kSide) == values, "mapped, it is as any other");
  CHECK(cuArrayDestroy(array));
  CHECK(cuMemRelease(memory));
}

void refused(Program& program, CUdevice device, CUstream stream) {
  auto descriptor = described(kSide, kSide, 0, CU_AD_FORMAT_FLOAT, 1, CUDA_ARRAY3D_SPARSE);
  CUarray array = nullptr;
  CUgraph graph = nullptr;
  CHECK(cuArray3DCreate(&array, &descriptor));
  const CUmemGenericAllocationHandle memory = tile_pool(device, kPool);
  CUarrayMapInfo good = box(array, {0, 0, 0}, {kTile, kTile, 1}, memory, 0);
  program.expect(cuMemMapArrayAsync(&good, 0, stream) == CUDA_ERROR_INVALID_VALUE &&
                     cuMemMapArrayAsync(nullptr, 1, stream) == CUDA_ERROR_INVALID_VALUE,
                 "there has to be something to map");
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
  program.expect(cuMemMapArrayAsync(&good, 1, stream) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED &&
                     cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                 "no graph maps tiles");
  CHECK(cuMemMapArrayAsync(&good, 1, stream));
  CHECK(cuMemMapArrayAsync(&good, 1, stream));
  CHECK(cuStreamSynchronize(stream));
  CHECK(cuArrayDestroy(array));
  descriptor.Flags = 0;
  CHECK(cuArray3DCreate(&array, &descriptor));
  good.resource.array = array;
  CUDA_ARRAY_SPARSE_PROPERTIES told{};
  program.expect(cuMemMapArrayAsync(&good, 1, stream) == CUDA_ERROR_INVALID_VALUE &&
                     cuArrayGetSparseProperties(&told, array) == CUDA_ERROR_INVALID_VALUE,
                 "an array that has its memory has no tiles");
  CHECK(cuArrayDestroy(array));
  CHECK(cuMemRelease(memory));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("sparseArrays", argc, argv);
  const Device device;
  CUstream stream = nullptr;
  int supported = -1;
  CHECK(cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_SPARSE_CUDA_ARRAY_SUPPORTED,
                             device.device()));
  program.expect(supported == 1, "the device has sparse arrays");
  CHECK(cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_DEFERRED_MAPPING_CUDA_ARRAY_SUPPORTED,
                             device.device()));
  program.expect(supported == 1, "the device has arrays that are mapped as a whole");
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  divisions(program);
  tiles(program, device.device(), stream);
  many(program, device.device(), stream);
  kernels(program, device.device(), stream);
  shapes(program, device.device(), stream);
  levels(program, device.device(), stream);
  deferred(program, device.device(), stream);
  refused(program, device.device(), stream);
  CHECK(cuStreamDestroy(stream));
  return program.finish();
}
