// Textures of arrays, of pitched and of linear memory, and surfaces, read and written by kernels.
// SPDX-License-Identifier: Apache-2.0
#include "driver.hpp"

namespace {

constexpr unsigned kWidth = 32;
constexpr unsigned kHeight = 8;

// plane(out, texture, shift): out[y * 32 + x] = texture at (x + shift, y + 0.5);
// line(out, texture): out[x] = element x; paint(surface): element (x, y) = y * 32 + x.
const char* const kTextureKernels = R"(
.version 7.0
.target sm_70
.address_size 64

.visible .entry plane(.param .u64 out, .param .u64 texture, .param .f32 shift) {
  .reg .b32 %r<6>;
  .reg .f32 %f<10>;
  .reg .b64 %rd<6>;
  ld.param.u64 %rd1, [out];
  ld.param.u64 %rd2, [texture];
  ld.param.f32 %f1, [shift];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.x;
  cvt.rn.f32.u32 %f2, %r1;
  cvt.rn.f32.u32 %f3, %r2;
  add.f32 %f4, %f2, %f1;
  add.f32 %f5, %f3, 0f3F000000;
  tex.2d.v4.f32.f32 {%f6, %f7, %f8, %f9}, [%rd2, {%f4, %f5}];
  mad.lo.u32 %r3, %r2, 32, %r1;
  mul.wide.u32 %rd3, %r3, 4;
  add.s64 %rd4, %rd1, %rd3;
  st.global.f32 [%rd4], %f6;
  ret;
}

.visible .entry line(.param .u64 out, .param .u64 texture) {
  .reg .b32 %r<3>;
  .reg .f32 %f<5>;
  .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [out];
  ld.param.u64 %rd2, [texture];
  mov.u32 %r1, %tid.x;
  tex.1d.v4.f32.s32 {%f1, %f2, %f3, %f4}, [%rd2, {%r1}];
  mul.wide.u32 %rd3, %r1, 4;
  add.s64 %rd4, %rd1, %rd3;
  st.global.f32 [%rd4], %f1;
  ret;
}

.visible .entry paint(.param .u64 surface) {
  .reg .b32 %r<6>;
  .reg .f32 %f<2>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [surface];
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.x;
  mad.lo.u32 %r3, %r2, 32, %r1;
  cvt.rn.f32.u32 %f1, %r3;
  mov.b32 %r4, %f1;
  shl.b32 %r5, %r1, 2;
  sust.b.2d.b32.trap [%rd1, {%r5, %r2}], {%r4};
  ret;
}
)";

float element(size_t at) { return static_cast<float>(at); }

std::vector<float> numbered() {
  std::vector<float> values(kWidth * kHeight);
  for (size_t i = 0; i < values.size(); ++i) values[i] = element(i);
  return values;
}

CUarray make_array(unsigned flags) {
  CUDA_ARRAY3D_DESCRIPTOR descriptor{};
  descriptor.Width = kWidth;
  descriptor.Height = kHeight;
  descriptor.Format = CU_AD_FORMAT_FLOAT;
  descriptor.NumChannels = 1;
  descriptor.Flags = flags;
  CUarray array = nullptr;
  CHECK(cuArray3DCreate(&array, &descriptor));
  return array;
}

void copy_array(CUarray array, float* host, bool to_array) {
  CUDA_MEMCPY2D copy{};
  copy.srcMemoryType = to_array ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_ARRAY;
  copy.srcHost = host;
  copy.srcArray = array;
  copy.dstMemoryType = to_array ? CU_MEMORYTYPE_ARRAY : CU_MEMORYTYPE_HOST;
  copy.dstHost = host;
  copy.dstArray = array;
  copy.WidthInBytes = kWidth * sizeof(float);
  copy.Height = kHeight;
  CHECK(cuMemcpy2D(&copy));
}

CUDA_TEXTURE_DESC sampling(CUfilter_mode filter) {
  CUDA_TEXTURE_DESC texture{};
  for (CUaddress_mode& mode : texture.addressMode) mode = CU_TR_ADDRESS_MODE_CLAMP;
  texture.filterMode = filter;
  return texture;
}

class Kernels {
 public:
  Kernels() {
    CHECK(cuModuleLoadData(&module_, kTextureKernels));
    CHECK(cuMemAlloc(&out_, kWidth * kHeight * sizeof(float)));
  }
  ~Kernels() {
    CHECK(cuMemFree(out_));
    CHECK(cuModuleUnload(module_));
  }
  Kernels(const Kernels&) = delete;
  Kernels& operator=(const Kernels&) = delete;

  std::vector<float> plane(CUtexObject texture, float shift) {
    void* arguments[] = {&out_, &texture, &shift};
    run("plane", kHeight, arguments);
    return result(kWidth * kHeight);
  }
  std::vector<float> line(CUtexObject texture) {
    void* arguments[] = {&out_, &texture};
    run("line", 1, arguments);
    return result(kWidth);
  }
  void paint(CUsurfObject surface) {
    void* arguments[] = {&surface};
    run("paint", kHeight, arguments);
    CHECK(cuCtxSynchronize());
  }

 private:
  void run(const char* name, unsigned blocks, void** arguments) {
    CUfunction function = nullptr;
    CHECK(cuModuleGetFunction(&function, module_, name));
    CHECK(cuLaunchKernel(function, blocks, 1, 1, kWidth, 1, 1, 0, nullptr, arguments, nullptr));
  }
  std::vector<float> result(size_t count) const {
    std::vector<float> values(count);
    CHECK(cuMemcpyDtoH(values.data(), out_, count * sizeof(float)));
    return values;
  }

  CUmodule module_ = nullptr;
  CUdeviceptr out_ = 0;
};

void of_an_array(Program& program, Kernels& kernels, const CUDA_RESOURCE_DESC& resource) {
  const CUDA_TEXTURE_DESC points = sampling(CU_TR_FILTER_MODE_POINT);
  const CUDA_TEXTURE_DESC smooth = sampling(CU_TR_FILTER_MODE_LINEAR);
  CUtexObject texture = 0;
  CHECK(cuTexObjectCreate(&texture, &resource, &points, nullptr));
  const std::vector<float> exact = kernels.plane(texture, 0.5F);
  program.expect(exact == numbered(), "a texture gives what is in the array");
  program.save(exact);
  CUDA_RESOURCE_DESC told{};
  CUDA_TEXTURE_DESC how{};
  CHECK(cuTexObjectGetResourceDesc(&told, texture));
  CHECK(cuTexObjectGetTextureDesc(&how, texture));
  program.expect(told.resType == CU_RESOURCE_TYPE_ARRAY &&
                     told.res.array.hArray == resource.res.array.hArray &&
                     how.filterMode == CU_TR_FILTER_MODE_POINT,
                 "a texture tells what it was made of");
  CHECK(cuTexObjectDestroy(texture));

  CUDA_RESOURCE_VIEW_DESC view{};
  view.format = CU_RES_VIEW_FORMAT_FLOAT_1X32;
  view.width = kWidth;
  view.height = kHeight;
  CHECK(cuTexObjectCreate(&texture, &resource, &smooth, &view));
  const std::vector<float> mixed = kernels.plane(texture, 1.0F);
  bool right = true;
  for (size_t i = 0; i < mixed.size(); ++i) {
    right = right && mixed[i] == element(i) + (i % kWidth == kWidth - 1 ? 0.0F : 0.5F);
  }
  program.expect(right, "a texture mixes neighbours");
  program.save(mixed);
  CUDA_RESOURCE_VIEW_DESC seen{};
  CHECK(cuTexObjectGetResourceViewDesc(&seen, texture));
  program.expect(seen.format == view.format && seen.width == kWidth, "a texture tells its view");
  CHECK(cuTexObjectDestroy(texture));
}

void of_memory(Program& program, Kernels& kernels) {
  const std::vector<float> values = numbered();
  const CUDA_TEXTURE_DESC points = sampling(CU_TR_FILTER_MODE_POINT);
  CUdeviceptr pitched = 0;
  size_t pitch = 0;
  CHECK(cuMemAllocPitch(&pitched, &pitch, kWidth * sizeof(float), kHeight, 4));
  CUDA_MEMCPY2D copy{};
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = values.data();
  copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
  copy.dstDevice = pitched;
  copy.dstPitch = pitch;
  copy.WidthInBytes = kWidth * sizeof(float);
  copy.Height = kHeight;
  CHECK(cuMemcpy2D(&copy));
  CUDA_RESOURCE_DESC resource{};
  resource.resType = CU_RESOURCE_TYPE_PITCH2D;
  resource.res.pitch2D.devPtr = pitched;
  resource.res.pitch2D.format = CU_AD_FORMAT_FLOAT;
  resource.res.pitch2D.numChannels = 1;
  resource.res.pitch2D.width = kWidth;
  resource.res.pitch2D.height = kHeight;
  resource.res.pitch2D.pitchInBytes = pitch;
  CUtexObject texture = 0;
  CHECK(cuTexObjectCreate(&texture, &resource, &points, nullptr));
  program.expect(kernels.plane(texture, 0.5F) == values, "a texture gives what is in rows");
  CHECK(cuTexObjectDestroy(texture));

  resource = {};
  resource.resType = CU_RESOURCE_TYPE_LINEAR;
  resource.res.linear.devPtr = pitched;
  resource.res.linear.format = CU_AD_FORMAT_FLOAT;
  resource.res.linear.numChannels = 1;
  resource.res.linear.sizeInBytes = kWidth * sizeof(float);
  CHECK(cuTexObjectCreate(&texture, &resource, &points, nullptr));
  program.expect(
      kernels.line(texture) == std::vector<float>(values.begin(), values.begin() + kWidth),
      "a texture gives what is in memory");
  CHECK(cuTexObjectDestroy(texture));
  CHECK(cuMemFree(pitched));
}

void surfaces(Program& program, Kernels& kernels) {
  const CUarray array = make_array(CUDA_ARRAY3D_SURFACE_LDST);
  CUDA_RESOURCE_DESC resource{};
  resource.resType = CU_RESOURCE_TYPE_ARRAY;
  resource.res.array.hArray = array;
  CUsurfObject surface = 0;
  CHECK(cuSurfObjectCreate(&surface, &resource));
  kernels.paint(surface);
  std::vector<float> painted(kWidth * kHeight);
  copy_array(array, painted.data(), false);
  program.expect(painted == numbered(), "a surface is written");
  program.save(painted);
  CUDA_RESOURCE_DESC told{};
  CHECK(cuSurfObjectGetResourceDesc(&told, surface));
  program.expect(told.res.array.hArray == array, "a surface tells its array");
  CHECK(cuSurfObjectDestroy(surface));
  CHECK(cuArrayDestroy(array));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("textures", argc, argv);
  const Device device;
  std::vector<float> values = numbered();
  const CUarray array = make_array(0);
  copy_array(array, values.data(), true);
  CUDA_RESOURCE_DESC resource{};
  resource.resType = CU_RESOURCE_TYPE_ARRAY;
  resource.res.array.hArray = array;
  {
    Kernels kernels;
    of_an_array(program, kernels, resource);
    of_memory(program, kernels);
    surfaces(program, kernels);
  }
  CHECK(cuArrayDestroy(array));
  return program.finish();
}
