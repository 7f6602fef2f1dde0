// Tensor maps: the same arguments give the same bytes, others give others, wrong ones are refused.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

namespace {

// No memory has to be there: a map is a description.
void* const kAddress = reinterpret_cast<void*>(uintptr_t{0x7a0000000000});
void* const kElsewhere = reinterpret_cast<void*>(uintptr_t{0x7b0000000000});

struct alignas(64) Map {
  CUtensorMap value{};
  bool operator==(const Map& other) const {
    return std::memcmp(&value, &other.value, sizeof value) == 0;
  }
};

CUresult tiled(Map* map, void* address, cuuint32_t box_rows,
               CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_64B) {
  const cuuint64_t dimensions[] = {256, 128};
  const cuuint64_t strides[] = {256 * sizeof(float)};
  const cuuint32_t box[] = {16, box_rows}, steps[] = {1, 1};
  return cuTensorMapEncodeTiled(&map->value, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 2, address,
                                dimensions, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

void tiles(Program& program) {
  Map first, same, other, line;
  CHECK(tiled(&first, kAddress, 8));
  CHECK(tiled(&same, kAddress, 8));
  CHECK(tiled(&other, kAddress, 16));
  program.expect(first == same, "the same arguments give the same map");
  program.expect(!(first == other), "another box gives another");
  program.save(&first.value, sizeof first.value);
  program.save(&other.value, sizeof other.value);

  CHECK(tiled(&other, kElsewhere, 8));
  CHECK(cuTensorMapReplaceAddress(&same.value, kElsewhere));
  program.expect(same == other, "a map whose address is replaced is the map of that address");

  const cuuint64_t length = 4096, stride = 0;  // a line has none, but the place must be given
  const cuuint32_t box = 64, step = 1;
  CHECK(cuTensorMapEncodeTiled(&line.value, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 1, kAddress, &length,
                               &stride, &box, &step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                               CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                               CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
  program.save(&line.value, sizeof line.value);
}

void refusals(Program& program) {
  Map map;
  program.expect(tiled(&map, static_cast<char*>(kAddress) + 4, 8) == CUDA_ERROR_INVALID_VALUE,
                 "an address that is not aligned is refused (1)");
  program.expect(tiled(&map, kAddress, 257) == CUDA_ERROR_INVALID_VALUE,
                 "so is a box of more than 256 rows");
  program.expect(tiled(&map, kAddress, 0) == CUDA_ERROR_INVALID_VALUE, "and one of none");
  program.expect(tiled(&map, kAddress, 8, CU_TENSOR_MAP_SWIZZLE_32B) == CUDA_ERROR_INVALID_VALUE,
                 "and a row that is longer than what is swizzled");
}

// Activations of a convolution: channels, width, height, images.
void columns(Program& program) {
  const cuuint64_t dimensions[] = {64, 32, 32, 4};
  const cuuint64_t strides[] = {128, 128 * 32, 128 * 32 * 32};
  const int lower[] = {-1, -1}, upper[] = {-1, -1};
  const cuuint32_t steps[] = {1, 1, 1, 1};
  Map map, same, wide;
  for (Map* out : {&map, &same}) {
    CHECK(cuTensorMapEncodeIm2col(
        &out->value, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, kAddress, dimensions, strides, lower,
        upper, 64, 128, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
  }
  program.expect(map == same, "the same columns give the same map");
  program.save(&map.value, sizeof map.value);

  // For devices from 10.0 on; others may refuse it, the same way wherever they are.
  const CUresult result = cuTensorMapEncodeIm2colWide(
      &wide.value, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, kAddress, dimensions, strides, -1, -1, 64,
      128, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_IM2COL_WIDE_MODE_W,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_NONE,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  program.expect(result != CUDA_SUCCESS || !(wide == map), "wide columns give another map");
  program.save(&result, sizeof result);
  program.save(&wide.value, sizeof wide.value);
}

}  // namespace

int main(int argc, char** argv) {
  Program program("tensorMaps", argc, argv);
  const Device device;
  tiles(program);
  refusals(program);
  columns(program);
  return program.finish();
}
