// Arrays of one to three dimensions, layered and mipmapped: made, filled, read back, described.
// SPDX-License-Identifier: Apache-2.0
#include "arrays.hpp"

namespace {

std::vector<float> counted(size_t count, float first) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = first + static_cast<float>(i);
  return values;
}

CUarray make(size_t width, size_t height, size_t depth, unsigned flags = 0) {
  CUDA_ARRAY3D_DESCRIPTOR descriptor{};
  descriptor.Width = width;
  descriptor.Height = height;
  descriptor.Depth = depth;
  descriptor.Format = CU_AD_FORMAT_FLOAT;
  descriptor.NumChannels = 1;
  descriptor.Flags = flags;
  CUarray array = nullptr;
  CHECK(cuArray3DCreate(&array, &descriptor));
  return array;
}

void rows(Program& program, CUstream stream) {
  CUDA_ARRAY_DESCRIPTOR descriptor{};
  descriptor.Width = 1000;
  descriptor.Format = CU_AD_FORMAT_FLOAT;
  descriptor.NumChannels = 1;
  CUarray first = nullptr;
  CUarray second = nullptr;
  CHECK(cuArrayCreate(&first, &descriptor));
  CHECK(cuArrayCreate(&second, &descriptor));
  const std::vector<float> values = counted(1000, 0.5F);
  std::vector<float> back(1000);
  CHECK(cuMemcpyHtoA(first, 0, values.data(), 4000));
  CHECK(cuMemcpyAtoA(second, 400, first, 0, 3600));
  CHECK(cuMemcpyHtoAAsync(second, 0, values.data() + 500, 400, stream));
  CHECK(cuStreamSynchronize(stream));
  CHECK(cuMemcpyAtoH(back.data(), second, 0, 4000));
  program.expect(
      back[0] == 500.5F && back[99] == 599.5F && back[100] == 0.5F && back[999] == 899.5F,
      "rows go into arrays and from array to array");
  const CUdeviceptr device = allocate(4000);
  CHECK(cuMemcpyAtoD(device, first, 2000, 2000));
  CHECK(cuMemcpyDtoA(second, 2000, device, 1000));
  CHECK(cuMemcpyAtoHAsync(back.data(), second, 0, 4000, stream));
  CHECK(cuStreamSynchronize(stream));
  program.expect(back[500] == 500.5F && back[749] == 749.5F && back[750] == 650.5F,
                 "rows go between arrays and memory");
  program.save(back);
  CUDA_ARRAY_DESCRIPTOR told{};
  CHECK(cuArrayGetDescriptor(&told, first));
  program.expect(told.Width == 1000 && told.Height == 0 && told.Format == CU_AD_FORMAT_FLOAT &&
                     told.NumChannels == 1,
                 "an array tells what it is");
  program.expect(cuMemcpyHtoA(first, 3000, values.data(), 2000) == CUDA_ERROR_INVALID_VALUE,
                 "a copy stays in the array");
  CHECK(cuMemFree(device));
  CHECK(cuArrayDestroy(first));
  CHECK(cuArrayDestroy(second));
}

void shapes(Program& program, CUstream stream) {
  struct Case {
    size_t width, height, depth;
    unsigned flags;
    const char* what;
  };
  const Case cases[] = {{64, 32, 0, 0, "an array of two dimensions"},
                        {2000, 2500, 0, 0, "an array larger than what goes at once"},
                        {33, 21, 11, 0, "an array of three dimensions"},
                        {300, 200, 100, 0, "a large array of three dimensions"},
                        {40, 30, 5, CUDA_ARRAY3D_LAYERED, "a layered array"},
                        {128, 0, 6, CUDA_ARRAY3D_LAYERED, "rows in layers"},
                        {16, 16, 6, CUDA_ARRAY3D_CUBEMAP, "a cube"},
                        {48, 48, 0, CUDA_ARRAY3D_SURFACE_LDST, "an array that surfaces write"}};
  for (const Case& one : cases) {
    const size_t height = one.height == 0 ? 1 : one.height;
    const size_t depth = one.depth == 0 ? 1 : one.depth;
    const CUarray array = make(one.width, one.height, one.depth, one.flags);
    const CUarray other = make(one.width, one.height, one.depth, one.flags);
    const std::vector<float> values = counted(one.width * height * depth, 1);
    fill(array, values, one.width, height, depth);
    CUDA_MEMCPY3D copy = copy_of(one.width, height, depth);
    copy.srcMemoryType = copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    copy.srcArray = array;
    copy.dstArray = other;
    CHECK(cuMemcpy3DAsync(&copy, stream));
    CHECK(cuStreamSynchronize(stream));
    program.expect(contents(other, one.width, height, depth) == values, one.what);
    CUDA_ARRAY3D_DESCRIPTOR told{};
    CHECK(cuArray3DGetDescriptor(&told, array));
    program.expect(told.Width == one.width && told.Height == one.height &&
                       told.Depth == one.depth && (told.Flags & one.flags) == one.flags,
                   "an array tells its shape");
    CHECK(cuArrayDestroy(array));
    CHECK(cuArrayDestroy(other));
  }
}

// A window of an array, between pitched memory of the device and of the host.
void windows(Program& program) {
  const CUarray array = make(100, 50, 0);
  fill(array, counted(5000, 0), 100, 50, 1);
  size_t pitch = 0;
  CUdeviceptr device = 0;
  CHECK(cuMemAllocPitch(&device, &pitch, 40 * sizeof(float), 20, 4));
  CUDA_MEMCPY2D copy{};
  copy.srcMemoryType = CU_MEMORYTYPE_ARRAY;
  copy.srcArray = array;
  copy.srcXInBytes = 10 * sizeof(float);
  copy.srcY = 5;
  copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.dstDevice = device;
  copy.dstPitch = pitch;
  copy.WidthInBytes = 40 * sizeof(float);
  copy.Height = 20;
  CHECK(cuMemcpy2D(&copy));
  std::vector<float> back(40 * 20);
  CUDA_MEMCPY2D out{};
  out.srcMemoryType = CU_MEMORYTYPE_DEVICE;
  out.srcDevice = device;
  out.srcPitch = pitch;
  out.dstMemoryType = CU_MEMORYTYPE_HOST;
  out.dstHost = back.data();
  out.dstPitch = 40 * sizeof(float);
  out.WidthInBytes = copy.WidthInBytes;
  out.Height = 20;
  CHECK(cuMemcpy2D(&out));
  program.expect(back[0] == 510 && back[39] == 549 && back[40] == 610 && back.back() == 2449,
                 "a window of an array");
  program.save(back);
  CUDA_ARRAY_MEMORY_REQUIREMENTS needs{};
  const CUresult told = cuArrayGetMemoryRequirements(&needs, array, 0);
  program.expect(told != CUDA_SUCCESS || needs.size >= 5000 * sizeof(float),
                 "an array needs room for what is in it");
  CUarray plane = nullptr;
  program.expect(cuArrayGetPlane(&plane, array, 0) == CUDA_ERROR_INVALID_VALUE,
                 "an array of one plane has none");
  CHECK(cuMemFree(device));
  CHECK(cuArrayDestroy(array));
}

void mipmaps(Program& program) {
  CUDA_ARRAY3D_DESCRIPTOR descriptor{};
  descriptor.Width = 64;
  descriptor.Height = 32;
  descriptor.Format = CU_AD_FORMAT_FLOAT;
  descriptor.NumChannels = 1;
  CUmipmappedArray mipmap = nullptr;
  CHECK(cuMipmappedArrayCreate(&mipmap, &descriptor, 3));
  for (unsigned number = 0; number < 3; ++number) {
    CUarray level = nullptr;
    CUDA_ARRAY3D_DESCRIPTOR told{};
    CHECK(cuMipmappedArrayGetLevel(&level, mipmap, number));
    CHECK(cuArray3DGetDescriptor(&told, level));
    const size_t width = size_t{64} >> number;
    const size_t height = size_t{32} >> number;
    program.expect(told.Width == width && told.Height == height, "a level has half the size");
    const std::vector<float> values = counted(width * height, 100);
    fill(level, values, width, height, 1);
    program.expect(contents(level, width, height, 1) == values, "a level is an array");
  }
  CUarray none = nullptr;
  program.expect(cuMipmappedArrayGetLevel(&none, mipmap, 3) == CUDA_ERROR_INVALID_VALUE,
                 "there are as many levels as were asked for");
  CUDA_ARRAY_MEMORY_REQUIREMENTS needs{};
  program.expect(cuMipmappedArrayGetMemoryRequirements(&needs, mipmap, 0) != CUDA_SUCCESS ||
                     needs.size >= 64 * 32 * sizeof(float),
                 "a mipmapped array needs room for what is in it");
  CHECK(cuMipmappedArrayDestroy(mipmap));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("arrays", argc, argv);
  const Device device;
  CUstream stream;
  // In order with the plain copies, which may be under way when their calls return.
  CHECK(cuStreamCreate(&stream, CU_STREAM_DEFAULT));
  rows(program, stream);
  shapes(program, stream);
  windows(program);
  mipmaps(program);
  CHECK(cuStreamDestroy(stream));
  return program.finish();
}
