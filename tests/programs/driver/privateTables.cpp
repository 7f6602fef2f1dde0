// The private tables that CUDA's own libraries ask the driver for, called the way they call them.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>

#include "driver.hpp"

namespace {

using Slot = const void*;

// "21318c60-9714-…" as a CUuuid.
CUuuid id_of(const char* text) {
  CUuuid id{};
  for (int digit = 0; *text != '\0'; ++text) {
    if (*text == '-') continue;
    const int value = *text <= '9' ? *text - '0' : *text - 'a' + 10;
    char& byte = id.bytes[digit / 2];
    byte = static_cast<char>((static_cast<unsigned char>(byte) << 4) | value);
    ++digit;
  }
  return id;
}

const Slot* table_of(const char* id) {
  const CUuuid uuid = id_of(id);
  const void* table = nullptr;
  CHECK(cuGetExportTable(&table, &uuid));
  return static_cast<const Slot*>(table);
}

template <typename Signature>
Signature* slot(const Slot* table, size_t index) {
  return reinterpret_cast<Signature*>(reinterpret_cast<uintptr_t>(table[index]));
}

void unknown_table(Program& program) {
  const CUuuid unknown = id_of("00000000-1111-2222-3333-444444444444");
  const void* table = &unknown;
  const CUresult refused = cuGetExportTable(&table, &unknown);
  std::printf("unknown table: %d, %s\n", refused, table == nullptr ? "null" : "as it was");
  program.expect(refused != CUDA_SUCCESS, "a table that is not served is refused");
}

// cuBLASLt on Hopper: one byte for each pair of multiprocessors.
void clusters(Program& program, const Device& device) {
  const Slot* table = table_of("1734dc26-800d-4745-8726-c0f1e7dd8bca");
  int multiprocessors = 0;
  CHECK(cuDeviceGetAttribute(&multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                             device.device()));
  const auto count = static_cast<size_t>(multiprocessors / 2);
  for (int round = 0; round < 2; ++round) {
    uint8_t *place = nullptr, *gpc = nullptr;
    CHECK(slot<CUresult(uint8_t**, uint8_t**)>(table, 4)(&place, &gpc));
    program.save(place, count);
    program.save(gpc, count);
    bool told = false;
    for (size_t i = 0; i < count; ++i) told = told || place[i] != 0 || gpc[i] != 0;
    program.expect(told || count < 2, "the places of clusters differ");
    CHECK(slot<CUresult(uint8_t*, uint8_t*)>(table, 13)(place, gpc));
  }
}

// cuFFT: every function of a module, which is then launched.
void functions(Program& program) {
  CUmodule module = nullptr;
  CHECK(cuModuleLoadData(&module, kKernels));
  const Slot* table = table_of("6e163fbe-b958-444d-835c-e182aff1991e");
  std::vector<CUfunction> found;
  const auto visit = [](void* opaque, CUfunction function, uint64_t) {
    static_cast<std::vector<CUfunction>*>(opaque)->push_back(function);
  };
  using Callback = void(void*, CUfunction, uint64_t);
  const uint64_t count = slot<uint64_t(CUcontext, CUmodule, Callback*, void*)>(table, 7)(
      nullptr, module, visit, &found);
  program.expect(count == 2 && found.size() == 2, "both functions are told");
  const CUdeviceptr values = upload(std::vector<int>(64, 5));
  int launched = 0;
  for (CUfunction function : found) {
    const char* name = nullptr;
    CHECK(cuFuncGetName(&name, function));
    if (std::strcmp(name, "step") != 0) continue;
    CUdeviceptr address = values;
    int size = 64, factor = 3;
    void* arguments[] = {&address, &size, &factor};
    CHECK(cuLaunchKernel(function, 1, 1, 1, 64, 1, 1, 0, nullptr, arguments, nullptr));
    CUfunction by_name = nullptr;
    CHECK(cuModuleGetFunction(&by_name, module, "step"));
    program.expect(by_name == function, "a function has one handle, however it was found");
    ++launched;
  }
  program.expect(launched == 1, "one of them is step");
  const std::vector<int> out = download(values, 64);
  program.expect(out == std::vector<int>(64, 16), "it does what it should");
  program.save(out);
  CHECK(cuMemFree(values));
  CHECK(cuModuleUnload(module));
}

void contexts_and_streams(Program& program, const Device& device) {
  const Slot* table = table_of("21318c60-9714-3248-8ca6-41ff7324c8f2");
  uint64_t id = 0;
  unsigned long long expected = 0;
  CHECK(slot<CUresult(CUcontext, uint64_t*)>(table, 4)(device.context(), &id));
  CHECK(cuCtxGetId(device.context(), &expected));
  program.expect(id == expected, "the context's id is the one that cuCtxGetId gives");
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  void* object = nullptr;
  CHECK(slot<CUresult(CUcontext, CUstream, void**)>(table, 51)(device.context(), stream, &object));
  CHECK(slot<CUresult(CUcontext, void*, uint64_t*)>(table, 39)(device.context(), object, &id));
  CHECK(cuStreamGetId(stream, &expected));
  program.expect(id == expected, "the stream's id is the one that cuStreamGetId gives");
  CHECK(slot<CUresult(CUcontext, CUstream, void**)>(table, 51)(device.context(), nullptr, &object));
  program.expect(object != nullptr, "the default stream has an object, too");
  CHECK(cuStreamDestroy(stream));

  CUcontext current = nullptr;
  const Slot* thread = table_of("42d85a81-23f6-cb47-8298-f6e78a3aecdc");
  CHECK(slot<CUresult(CUcontext*)>(thread, 2)(&current));
  program.expect(current == device.context(), "the thread's current context is told");
}

}  // namespace

int main(int argc, char** argv) {
  Program program("privateTables", argc, argv);
  const Device device;
  unknown_table(program);
  clusters(program, device);
  functions(program);
  contexts_and_streams(program, device);
  return program.finish();
}
