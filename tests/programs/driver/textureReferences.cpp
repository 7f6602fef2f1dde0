// Texture and surface references: what they say of themselves, what kernels read and write through
// them, and that a launch keeps what they were bound to. SPDX-License-Identifier: Apache-2.0
#define __CUDA_API_VERSION_INTERNAL  // every name means itself
#include <cuda.h>

#include <array>
#include <atomic>

#include "../program.hpp"

#define CHECK(call) check((call), #call, __LINE__)

namespace {

void check(CUresult result, const char* call, int line) {
  if (result == CUDA_SUCCESS) return;
  std::fprintf(stderr, "line %d: %s: %d\n", line, call, static_cast<int>(result));
  std::exit(1);
}

// fetch(out, n): the elements of `line`; sample(out, x, step, y): of `plane` at x, x + step, …;
// cut(out, z): a row of `volume`; layer(out, n): a row of a layer of `layers`; scrawl(v) and
// echo(out): row 1 of `page` is written and read; ask(out): how large they are; hold(flag): waits.
const char* const kKernels = R"(
.version 6.0
.target sm_50
.address_size 64
.global .texref line;
.global .texref plane;
.global .texref volume;
.global .texref layers;
.global .surfref page;
.visible .entry fetch(.param .u64 out, .param .u32 count) {
  .reg .b64 %rd<4>; .reg .b32 %r<10>; .reg .pred %p<2>;
  ld.param.u64 %rd0, [out]; ld.param.u32 %r0, [count];
  mov.u32 %r1, %tid.x; setp.ge.u32 %p0, %r1, %r0; @%p0 ret;
  tex.1d.v4.u32.s32 {%r2,%r3,%r4,%r5}, [line, {%r1}];
  mul.wide.u32 %rd1, %r1, 16; add.s64 %rd2, %rd0, %rd1;
  st.global.v4.u32 [%rd2], {%r2,%r3,%r4,%r5}; ret; }
.visible .entry sample(.param .u64 out, .param .f32 x, .param .f32 step, .param .f32 y) {
  .reg .b64 %rd<4>; .reg .b32 %r<4>; .reg .f32 %f<10>;
  ld.param.u64 %rd0, [out]; ld.param.f32 %f0, [x]; ld.param.f32 %f1, [step]; ld.param.f32 %f2, [y];
  mov.u32 %r1, %tid.x; cvt.rn.f32.u32 %f3, %r1; fma.rn.f32 %f4, %f3, %f1, %f0;
  tex.2d.v4.f32.f32 {%f5,%f6,%f7,%f8}, [plane, {%f4, %f2}];
  mul.wide.u32 %rd1, %r1, 16; add.s64 %rd2, %rd0, %rd1;
  st.global.v4.f32 [%rd2], {%f5,%f6,%f7,%f8}; ret; }
.visible .entry cut(.param .u64 out, .param .f32 z) {
  .reg .b64 %rd<4>; .reg .b32 %r<4>; .reg .f32 %f<10>;
  ld.param.u64 %rd0, [out]; ld.param.f32 %f0, [z]; mov.f32 %f1, 0f3F000000;
  mov.u32 %r1, %tid.x; cvt.rn.f32.u32 %f3, %r1; add.f32 %f4, %f3, %f1;
  tex.3d.v4.f32.f32 {%f5,%f6,%f7,%f8}, [volume, {%f4, %f1, %f0, %f0}];
  mul.wide.u32 %rd1, %r1, 4; add.s64 %rd2, %rd0, %rd1; st.global.f32 [%rd2], %f5; ret; }
.visible .entry layer(.param .u64 out, .param .u32 number) {
  .reg .b64 %rd<4>; .reg .b32 %r<4>; .reg .f32 %f<10>;
  ld.param.u64 %rd0, [out]; ld.param.u32 %r2, [number]; mov.f32 %f1, 0f3F000000;
  mov.u32 %r1, %tid.x; cvt.rn.f32.u32 %f3, %r1; add.f32 %f4, %f3, %f1;
  tex.a2d.v4.f32.f32 {%f5,%f6,%f7,%f8}, [layers, {%r2, %f4, %f1, %f1}];
  mul.wide.u32 %rd1, %r1, 4; add.s64 %rd2, %rd0, %rd1; st.global.f32 [%rd2], %f5; ret; }
.visible .entry scrawl(.param .u32 value) {
  .reg .b32 %r<6>; ld.param.u32 %r0, [value]; mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 2;
  add.u32 %r3, %r0, %r1; mov.u32 %r4, 1;
  sust.b.2d.b32.trap [page, {%r2, %r4}], {%r3}; ret; }
.visible .entry echo(.param .u64 out) {
  .reg .b64 %rd<4>; .reg .b32 %r<6>; ld.param.u64 %rd0, [out]; mov.u32 %r1, %tid.x;
  shl.b32 %r2, %r1, 2; mov.u32 %r4, 1; suld.b.2d.b32.trap {%r3}, [page, {%r2, %r4}];
  mul.wide.u32 %rd1, %r1, 4; add.s64 %rd2, %rd0, %rd1; st.global.u32 [%rd2], %r3; ret; }
.visible .entry ask(.param .u64 out) {
  .reg .b64 %rd<4>; .reg .b32 %r<6>; ld.param.u64 %rd0, [out];
  txq.width.b32 %r1, [plane]; txq.height.b32 %r2, [plane];
  suq.width.b32 %r3, [page]; suq.height.b32 %r4, [page];
  st.global.v4.u32 [%rd0], {%r1,%r2,%r3,%r4}; ret; }
.visible .entry hold(.param .u64 flag) {
  .reg .b64 %rd<2>; .reg .b32 %r<2>; .reg .pred %p<1>; ld.param.u64 %rd0, [flag];
again: ld.volatile.global.u32 %r0, [%rd0]; setp.eq.u32 %p0, %r0, 0; @%p0 bra again; ret; }
)";

constexpr unsigned kWidth = 8;
constexpr unsigned kHeight = 4;

class References {
 public:
  explicit References(Program& program) : program_(program) {
    CHECK(cuModuleLoadData(&module_, kKernels));
    CHECK(cuMemAlloc_v2(&out_, 1024));
    plane = texture("plane");
    line = texture("line");
    CHECK(cuModuleGetSurfRef(&page, module_, "page"));
  }
  ~References() {
    CHECK(cuMemFree_v2(out_));
    CHECK(cuModuleUnload(module_));
  }
  References(const References&) = delete;
  References& operator=(const References&) = delete;

  CUtexref texture(const char* name) const {
    CUtexref reference = nullptr;
    CHECK(cuModuleGetTexRef(&reference, module_, name));
    return reference;
  }
  CUfunction kernel(const char* name) const {
    CUfunction function = nullptr;
    CHECK(cuModuleGetFunction(&function, module_, name));
    return function;
  }
  void run(const char* name, unsigned threads, void** arguments, CUstream stream = nullptr) const {
    CHECK(cuLaunchKernel(kernel(name), 1, 1, 1, threads, 1, 1, 0, stream, arguments, nullptr));
  }
  template <typename T>
  std::vector<T> result(CUdeviceptr from, size_t count) {
    std::vector<T> values(count);
    CHECK(cuMemcpyDtoH_v2(values.data(), from, count * sizeof(T)));
    program_.save(values);
    return values;
  }
  // The first channel of four places, the others of which are zero.
  std::vector<float> sample(float x, float step, float y) {
    void* arguments[] = {&out_, &x, &step, &y};
    run("sample", 4, arguments);
    const std::vector<float> all = result<float>(out_, 16);
    return {all[0], all[4], all[8], all[12]};
  }
  std::vector<uint32_t> fetch(uint32_t count) {
    void* arguments[] = {&out_, &count};
    run("fetch", count, arguments);
    return result<uint32_t>(out_, size_t{4} * count);
  }
  std::vector<float> row(const char* name, void* which) {
    void* arguments[] = {&out_, which};
    run(name, 4, arguments);
    return result<float>(out_, 4);
  }
  CUmodule module() const { return module_; }
  CUdeviceptr out() const { return out_; }

  CUtexref plane = nullptr, line = nullptr;
  CUsurfref page = nullptr;

 private:
  Program& program_;
  CUmodule module_ = nullptr;
  CUdeviceptr out_ = 0;
};

using Floats = std::vector<float>;

// An array whose elements count up from `first`.
CUarray numbers(float first, size_t width = kWidth, size_t height = kHeight, size_t depth = 0,
                unsigned flags = 0) {
  CUDA_ARRAY3D_DESCRIPTOR descriptor{};
  descriptor.Width = width;
  descriptor.Height = height;
  descriptor.Depth = depth;
  descriptor.Format = CU_AD_FORMAT_FLOAT;
  descriptor.NumChannels = 1;
  descriptor.Flags = flags;
  CUarray array = nullptr;
  CHECK(cuArray3DCreate_v2(&array, &descriptor));
  const size_t slices = depth == 0 ? 1 : depth;
  Floats values(width * height * slices);
  for (size_t i = 0; i < values.size(); ++i) values[i] = first + static_cast<float>(i);
  CUDA_MEMCPY3D copy{};
  copy.srcMemoryType = CU_MEMORYTYPE_HOST;
  copy.srcHost = values.data();
  copy.srcPitch = width * sizeof(float);
  copy.srcHeight = height;
  copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
  copy.dstArray = array;
  copy.WidthInBytes = width * sizeof(float);
  copy.Height = height;
  copy.Depth = slices;
  CHECK(cuMemcpy3D_v2(&copy));
  return array;
}

void names(Program& program, References& all) {
  CUtexref texture = nullptr;
  CUsurfref surface = nullptr;
  program.expect(all.texture("plane") == all.plane, "a reference has one handle");
  program.expect(cuModuleGetTexRef(&texture, all.module(), "nothing") == CUDA_ERROR_NOT_FOUND &&
                     cuModuleGetTexRef(&texture, all.module(), "page") == CUDA_ERROR_NOT_FOUND &&
                     cuModuleGetSurfRef(&surface, all.module(), "plane") == CUDA_ERROR_NOT_FOUND,
                 "what is no such reference is not found");
  program.expect(
      cuModuleGetTexRef(nullptr, all.module(), "plane") == CUDA_ERROR_INVALID_VALUE &&
          cuModuleGetTexRef(&texture, nullptr, "plane") == CUDA_ERROR_INVALID_HANDLE &&
          cuTexRefSetFilterMode(nullptr, CU_TR_FILTER_MODE_POINT) == CUDA_ERROR_INVALID_HANDLE &&
          cuSurfRefSetArray(nullptr, nullptr, 0) == CUDA_ERROR_INVALID_HANDLE,
      "nothing is no reference");
  CUdeviceptr_v1 address = 0;
  unsigned offset = 0;
  CUDA_ARRAY_DESCRIPTOR_v1 rows{};
  program.expect(cuTexRefGetAddress(&address, all.plane) == CUDA_ERROR_INVALID_CONTEXT &&
                     cuTexRefSetAddress(&offset, all.plane, 0, 16) == CUDA_ERROR_INVALID_CONTEXT &&
                     cuTexRefSetAddress2D(all.plane, &rows, 0, 256) == CUDA_ERROR_INVALID_CONTEXT,
                 "the 32-bit interface has no context");
}

// What a reference says of itself, as it is after the module was loaded and after it was changed.
void told(Program& program, CUtexref reference) {
  CUaddress_mode edge{};
  CUfilter_mode filter{}, between{};
  CUarray_format format{};
  int channels = 0, anisotropy = 0;
  float bias = 0, least = 0, most = 0;
  std::array<float, 4> border{};
  unsigned flags = 0;
  for (int k = 0; k < 3; ++k) {
    CHECK(cuTexRefGetAddressMode(&edge, reference, k));
    program.save(&edge, sizeof edge);
  }
  CHECK(cuTexRefGetFilterMode(&filter, reference));
  CHECK(cuTexRefGetMipmapFilterMode(&between, reference));
  CHECK(cuTexRefGetFormat(&format, &channels, reference));
  CHECK(cuTexRefGetFormat(nullptr, nullptr, reference));
  CHECK(cuTexRefGetMipmapLevelBias(&bias, reference));
  CHECK(cuTexRefGetMipmapLevelClamp(&least, &most, reference));
  CHECK(cuTexRefGetMaxAnisotropy(&anisotropy, reference));
  CHECK(cuTexRefGetBorderColor(border.data(), reference));
  CHECK(cuTexRefGetFlags(&flags, reference));
  program.save(&filter, sizeof filter);
  program.save(&between, sizeof between);
  program.save(&format, sizeof format);
  program.save(&channels, sizeof channels);
  for (const float value : {bias, least, most, border[0], border[3]}) {
    program.save(&value, sizeof value);
  }
  program.save(&anisotropy, sizeof anisotropy);
  program.save(&flags, sizeof flags);
  program.expect(cuTexRefGetAddressMode(&edge, reference, 3) == CUDA_ERROR_INVALID_VALUE,
                 "there are three dimensions");
}

void settings(Program& program) {
  CUtexref reference = nullptr;
  CHECK(cuTexRefCreate(&reference));
  told(program, reference);
  CUarray array = nullptr;
  CUmipmappedArray levels = nullptr;
  CUdeviceptr address = 7;
  program.expect(cuTexRefGetArray(&array, reference) == CUDA_ERROR_INVALID_VALUE &&
                     cuTexRefGetMipmappedArray(&levels, reference) == CUDA_ERROR_INVALID_VALUE &&
                     cuTexRefGetAddress_v2(&address, reference) == CUDA_ERROR_INVALID_VALUE &&
                     address == 0,
                 "a new reference is bound to nothing");
  CHECK(cuTexRefSetAddressMode(reference, 1, CU_TR_ADDRESS_MODE_MIRROR));
  CHECK(cuTexRefSetFilterMode(reference, CU_TR_FILTER_MODE_LINEAR));
  CHECK(cuTexRefSetMipmapFilterMode(reference, CU_TR_FILTER_MODE_LINEAR));
  CHECK(cuTexRefSetMipmapLevelBias(reference, 1.5F));
  CHECK(cuTexRefSetMipmapLevelClamp(reference, 1, 2));
  CHECK(cuTexRefSetMaxAnisotropy(reference, 17));
  std::array<float, 4> border{1, 2, 3, 4};
  CHECK(cuTexRefSetBorderColor(reference, border.data()));
  CHECK(cuTexRefSetFlags(reference, CU_TRSF_NORMALIZED_COORDINATES));
  CHECK(cuTexRefSetFormat(reference, CU_AD_FORMAT_HALF, 2));
  told(program, reference);
  program.expect(
      cuTexRefSetAddressMode(reference, 3, CU_TR_ADDRESS_MODE_CLAMP) == CUDA_ERROR_INVALID_VALUE &&
          cuTexRefSetBorderColor(reference, nullptr) == CUDA_ERROR_INVALID_VALUE &&
          cuTexRefSetFlags(reference, 0x40) == CUDA_ERROR_INVALID_VALUE &&
          cuTexRefSetFormat(reference, CU_AD_FORMAT_FLOAT, 3) == CUDA_ERROR_INVALID_VALUE,
      "what cannot be is refused");
  told(program, reference);
  CHECK(cuTexRefDestroy(reference));
}

// A reference of no module, bound to arrays; nothing reads through it.
void loose(Program& program, References& all) {
  CUtexref reference = nullptr;
  CHECK(cuTexRefCreate(&reference));
  const CUarray array = numbers(0);
  CHECK(cuTexRefSetArray(reference, array, CU_TRSA_OVERRIDE_FORMAT));
  CUarray bound = nullptr;
  CHECK(cuTexRefGetArray(&bound, reference));
  program.expect(bound == array, "a reference tells its array");
  CHECK(cuParamSetTexRef(all.kernel("sample"), CU_PARAM_TR_DEFAULT, reference));
  program.expect(cuParamSetTexRef(all.kernel("sample"), CU_PARAM_TR_DEFAULT, all.plane) ==
                     CUDA_ERROR_INVALID_VALUE,
                 "a module's reference is found by its name alone");
  CUDA_ARRAY3D_DESCRIPTOR descriptor{8, 8, 0, CU_AD_FORMAT_FLOAT, 1, 0};
  CUmipmappedArray levels = nullptr, told_levels = nullptr;
  CHECK(cuMipmappedArrayCreate(&levels, &descriptor, 3));
  CHECK(cuTexRefSetMipmappedArray(reference, levels, CU_TRSA_OVERRIDE_FORMAT));
  CHECK(cuTexRefGetMipmappedArray(&told_levels, reference));
  program.expect(
      told_levels == levels && cuTexRefGetArray(&bound, reference) == CUDA_ERROR_INVALID_VALUE,
      "a reference is bound to what came last");
  CHECK(cuTexRefDestroy(reference));
  CHECK(cuMipmappedArrayDestroy(levels));
  CHECK(cuArrayDestroy(array));
}

void planes(Program& program, References& all) {
  const CUarray array = numbers(0);
  CHECK(cuTexRefSetArray(all.plane, array, CU_TRSA_OVERRIDE_FORMAT));
  program.expect(all.sample(0.5F, 1, 1.5F) == Floats{8, 9, 10, 11}, "elements");
  program.expect(all.sample(-1, 3, 1.5F) == Floats{8, 10, 13, 15}, "the edge's element beyond it");
  CHECK(cuTexRefSetFilterMode(all.plane, CU_TR_FILTER_MODE_LINEAR));
  program.expect(all.sample(1, 1, 1.5F) == Floats{8.5F, 9.5F, 10.5F, 11.5F}, "neighbours mixed");
  CHECK(cuTexRefSetFilterMode(all.plane, CU_TR_FILTER_MODE_POINT));
  for (int k = 0; k < 2; ++k) {
    CHECK(cuTexRefSetAddressMode(all.plane, k, CU_TR_ADDRESS_MODE_BORDER));
  }
  std::array<float, 4> border{9, 8, 7, 6};
  CHECK(cuTexRefSetBorderColor(all.plane, border.data()));
  program.expect(all.sample(-2.5F, 4, 1.5F) == Floats{9, 9, 13, 9}, "a colour beyond the edge");
  CHECK(cuTexRefSetFlags(all.plane, CU_TRSF_NORMALIZED_COORDINATES));
  CHECK(cuTexRefSetAddressMode(all.plane, 0, CU_TR_ADDRESS_MODE_WRAP));
  CHECK(cuTexRefSetAddressMode(all.plane, 1, CU_TR_ADDRESS_MODE_MIRROR));
  program.expect(all.sample(0.0625F, 0.5F, 1.1F) == Floats{24, 28, 24, 28}, "around and back");
  CHECK(cuTexRefSetFlags(all.plane, 0));
  for (int k = 0; k < 2; ++k) {
    CHECK(cuTexRefSetAddressMode(all.plane, k, CU_TR_ADDRESS_MODE_CLAMP));
  }

  const CUarray solid = numbers(0, 4, 2, 2);
  float z = 1.5F;
  CHECK(cuTexRefSetArray(all.texture("volume"), solid, CU_TRSA_OVERRIDE_FORMAT));
  program.expect(all.row("cut", &z) == Floats{8, 9, 10, 11}, "a volume");
  const CUarray stack = numbers(0, 4, 2, 3, CUDA_ARRAY3D_LAYERED);
  unsigned number = 2;
  CHECK(cuTexRefSetArray(all.texture("layers"), stack, CU_TRSA_OVERRIDE_FORMAT));
  program.expect(all.row("layer", &number) == Floats{16, 17, 18, 19}, "a layer");
  for (const CUarray one : {array, solid, stack}) CHECK(cuArrayDestroy(one));
}

void memory(Program& program, References& all) {
  std::vector<uint32_t> values(256);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint32_t>(0x01010101 * i);
  CUdeviceptr at = 0, told_address = 0;
  CHECK(cuMemAlloc_v2(&at, 4096));
  CHECK(cuMemcpyHtoD_v2(at, values.data(), 1024));
  CHECK(cuTexRefSetFormat(all.line, CU_AD_FORMAT_UNSIGNED_INT32, 1));
  CHECK(cuTexRefSetFlags(all.line, CU_TRSF_READ_AS_INTEGER));
  size_t offset = 7;
  CHECK(cuTexRefSetAddress_v2(&offset, all.line, at, 1024));
  CHECK(cuTexRefGetAddress_v2(&told_address, all.line));
  program.expect(offset == 0 && told_address == at, "memory as it is");
  program.expect(
      all.fetch(3) == std::vector<uint32_t>{0, 0, 0, 0, 0x01010101, 0, 0, 0, 0x02020202, 0, 0, 0},
      "words");
  CHECK(cuTexRefSetAddress_v2(&offset, all.line, at + 4, 1020));
  program.expect(offset == 4, "a texture begins at an aligned place before its memory");
  program.expect(cuTexRefSetAddress_v2(nullptr, all.line, at + 4, 1020) == CUDA_ERROR_INVALID_VALUE,
                 "who does not ask for the offset cannot have one");
  CHECK(cuTexRefSetFormat(all.line, CU_AD_FORMAT_UNSIGNED_INT8, 4));
  CHECK(cuTexRefSetAddress_v2(&offset, all.line, at, 1024));
  program.expect(all.fetch(2) == std::vector<uint32_t>{0, 0, 0, 0, 1, 1, 1, 1}, "bytes");
  CHECK(cuTexRefSetFlags(all.line, 0));
  program.expect(all.fetch(2)[4] == 0x3b808081, "parts of 1");
  CHECK(cuTexRefSetFormat(all.line, CU_AD_FORMAT_UNSIGNED_INT16, 2));
  CHECK(cuTexRefSetFlags(all.line, CU_TRSF_READ_AS_INTEGER));
  program.expect(all.fetch(2) == std::vector<uint32_t>{0, 0, 0, 0, 0x0101, 0x0101, 0, 0}, "pairs");

  Floats numbered(256);
  for (size_t i = 0; i < numbered.size(); ++i) numbered[i] = static_cast<float>(i);
  CHECK(cuMemcpyHtoD_v2(at, numbered.data(), 1024));
  CUDA_ARRAY_DESCRIPTOR rows{kWidth, kHeight, CU_AD_FORMAT_FLOAT, 1};
  CHECK(cuTexRefSetAddress2D_v3(all.plane, &rows, at, 256));
  program.expect(all.sample(0.5F, 1, 1.5F) == Floats{64, 65, 66, 67}, "rows with gaps");
  CHECK(cuTexRefSetAddress2D_v2(all.plane, &rows, at, 32));
  program.expect(all.sample(0.5F, 1, 1.5F) == Floats{8, 9, 10, 11}, "rows without");
  program.expect(
      cuTexRefSetAddress2D_v3(all.plane, &rows, at, 100) == CUDA_ERROR_INVALID_VALUE &&
          cuTexRefSetAddress2D_v3(all.plane, nullptr, at, 256) == CUDA_ERROR_INVALID_VALUE,
      "rows are aligned");
  CHECK(cuMemFree_v2(at));
}

void surfaces(Program& program, References& all) {
  const CUarray dry = numbers(0);
  const CUarray array = numbers(0, kWidth, kHeight, 0, CUDA_ARRAY3D_SURFACE_LDST);
  CUarray bound = nullptr;
  program.expect(cuSurfRefSetArray(all.page, dry, 0) == CUDA_ERROR_INVALID_VALUE &&
                     cuSurfRefGetArray(&bound, all.page) == CUDA_ERROR_INVALID_VALUE,
                 "an array that cannot be written is no page");
  CHECK(cuSurfRefSetArray(all.page, array, 0));
  CHECK(cuSurfRefGetArray(&bound, all.page));
  program.expect(bound == array, "a surface tells its array");
  CHECK(cuTexRefSetArray(all.plane, dry, CU_TRSA_OVERRIDE_FORMAT));
  CUdeviceptr out = all.out();
  void* to[] = {&out};
  all.run("ask", 1, to);
  program.expect(all.result<uint32_t>(out, 4) == std::vector<uint32_t>{8, 4, 8, 4}, "sizes");
  unsigned value = 0x100;
  void* what[] = {&value};
  all.run("scrawl", kWidth, what);
  all.run("echo", kWidth, to);
  const std::vector<uint32_t> read = all.result<uint32_t>(out, kWidth);
  program.expect(read.front() == 0x100 && read.back() == 0x107, "a page is written and read");
  CHECK(cuArrayDestroy(array));
  CHECK(cuArrayDestroy(dry));
}

// Two launches behind a kernel that runs: the reference is bound anew between them.
void rebinding(Program& program, References& all) {
  const CUarray first = numbers(0);
  const CUarray second = numbers(100);
  void* page = nullptr;
  CUdeviceptr flag = 0, there = 0;
  CHECK(cuMemHostAlloc(&page, 64, CU_MEMHOSTALLOC_DEVICEMAP));
  CHECK(cuMemHostGetDevicePointer_v2(&flag, page, 0));
  CHECK(cuMemAlloc_v2(&there, 64));
  auto* word = static_cast<std::atomic<unsigned>*>(page);
  word->store(0);
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuTexRefSetArray(all.plane, first, CU_TRSA_OVERRIDE_FORMAT));
  CUdeviceptr here = all.out();
  float x = 0.5F, step = 1, y = 0.5F;
  void* wait[] = {&flag};
  void* before[] = {&here, &x, &step, &y};
  void* after[] = {&there, &x, &step, &y};
  all.run("hold", 1, wait, stream);
  all.run("sample", 4, before, stream);
  CHECK(cuTexRefSetArray(all.plane, second, CU_TRSA_OVERRIDE_FORMAT));
  all.run("sample", 4, after, stream);
  word->store(1);
  CHECK(cuStreamSynchronize(stream));
  program.expect(all.result<float>(here, 16)[4] == 1, "a launch keeps what was bound");
  program.expect(all.result<float>(there, 16)[4] == 101, "the next one has what is bound then");
  CHECK(cuStreamDestroy_v2(stream));
  CHECK(cuMemFreeHost(page));
  CHECK(cuMemFree_v2(there));
  CHECK(cuArrayDestroy(first));
  CHECK(cuArrayDestroy(second));
  CUarray bound = nullptr;
  program.expect(cuTexRefGetArray(&bound, all.plane) == CUDA_ERROR_INVALID_VALUE,
                 "an array that is gone is bound nowhere");
}

// More launches than are under way at once, and then another array.
void many(Program& program, References& all) {
  constexpr size_t kLaunches = 700;
  const CUarray first = numbers(0);
  const CUarray second = numbers(100);
  CUdeviceptr cells = 0;
  CHECK(cuMemAlloc_v2(&cells, kLaunches * 64));
  CHECK(cuTexRefSetArray(all.plane, first, CU_TRSA_OVERRIDE_FORMAT));
  float x = 0.5F, step = 1, y = 0.5F;
  for (size_t i = 0; i < kLaunches; ++i) {
    CUdeviceptr cell = cells + i * 64;
    void* arguments[] = {&cell, &x, &step, &y};
    all.run("sample", 4, arguments);
  }
  CHECK(cuTexRefSetArray(all.plane, second, CU_TRSA_OVERRIDE_FORMAT));
  const Floats values = all.result<float>(cells, kLaunches * 16);
  bool right = true;
  for (size_t i = 0; i < kLaunches; ++i) right = right && values[i * 16 + 4] == 1;
  program.expect(right, "every launch has what was bound when it was made");
  CHECK(cuMemFree_v2(cells));
  CHECK(cuArrayDestroy(first));
  CHECK(cuArrayDestroy(second));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("textureReferences", argc, argv);
  CUdevice device = 0;
  CUcontext context = nullptr;
  CHECK(cuInit(0));
  CHECK(cuDeviceGet(&device, 0));
  CHECK(cuDevicePrimaryCtxRetain(&context, device));
  CHECK(cuCtxSetCurrent(context));
  {
    References all(program);
    names(program, all);
    settings(program);
    loose(program, all);
    program.expect(all.sample(0.5F, 1, 0.5F) == Floats{0, 0, 0, 0}, "nothing reads as zeros");
    planes(program, all);
    memory(program, all);
    surfaces(program, all);
    rebinding(program, all);
    many(program, all);
  }
  CHECK(cuDevicePrimaryCtxRelease_v2(device));
  return program.finish();
}
