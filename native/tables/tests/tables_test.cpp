// The tables as CUDA's libraries use them: by id, size and slot.
// SPDX-License-Identifier: Apache-2.0
#include "tables.hpp"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <utility>
#include <vector>

namespace tables = outboard::tables;

namespace {

CUcontext context_of(uintptr_t number) { return reinterpret_cast<CUcontext>(number); }

thread_local CUcontext current = nullptr;
const uint8_t kPlace[] = {0, 1, 0, 1};
const uint8_t kGpc[] = {0, 0, 1, 1};
bool has_tpc = true;

CUresult stream_object(CUcontext, CUstream stream, void** out) {
  *out = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(stream) + 0x1000);
  return CUDA_SUCCESS;
}

tables::Host fake_host() {
  tables::Host host{};
  host.current_context = [](CUcontext* out) { return *out = current, CUDA_SUCCESS; };
  host.primary_context = [](CUcontext* out, CUdevice device) {
    return *out = context_of(100 + static_cast<uintptr_t>(device)), CUDA_SUCCESS;
  };
  host.driver_version = [](int* out) { return *out = 13000, CUDA_SUCCESS; };
  host.device_count = [](int* out) { return *out = 2, CUDA_SUCCESS; };
  host.device_uuid = [](CUuuid* out, CUdevice device) {
    std::memset(out->bytes, device + 1, sizeof(out->bytes));
    return CUDA_SUCCESS;
  };
  host.device_attribute = [](int* out, CUdevice_attribute, CUdevice device) {
    return *out = device, CUDA_SUCCESS;
  };
  host.context_id = [](CUcontext context, unsigned long long* out) {
    return *out = reinterpret_cast<uintptr_t>(context), CUDA_SUCCESS;
  };
  host.load_module = [](CUmodule* out, const void* image) {
    return *out = static_cast<CUmodule>(const_cast<void*>(image)), CUDA_SUCCESS;
  };
  host.module_function_count = [](unsigned int* count, CUmodule) {
    return *count = 2, CUDA_SUCCESS;
  };
  host.module_functions = [](CUfunction* out, unsigned int count, CUmodule) {
    for (unsigned int i = 0; i < count; ++i) out[i] = reinterpret_cast<CUfunction>(0x100 + i);
    return CUDA_SUCCESS;
  };
  host.stream_object = stream_object;
  host.stream_id = [](CUcontext, void* object, uint64_t* out) {
    return *out = reinterpret_cast<uintptr_t>(object) - 0x1000, CUDA_SUCCESS;
  };
  host.tpc_layout = [](tables::TpcLayout* out) {
    *out = {kPlace, kGpc, has_tpc ? sizeof(kPlace) : 0};
    return CUDA_SUCCESS;
  };
  return host;
}

using Id = std::array<uint8_t, 16>;

CUresult ask(const Id& id, void* const** table) {
  tables::install(fake_host());
  CUuuid uuid;
  std::memcpy(uuid.bytes, id.data(), sizeof(uuid.bytes));
  return tables::get_export_table(reinterpret_cast<const void**>(table), &uuid);
}

void* const* table_of(const Id& id) {
  void* const* table = nullptr;
  REQUIRE(ask(id, &table) == CUDA_SUCCESS);
  REQUIRE(table != nullptr);
  return table;
}

template <typename Function>
Function* function_at(const Id& id, size_t slot) {
  return reinterpret_cast<Function*>(table_of(id)[slot]);
}

constexpr Id kInterface = {0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a,
                           0x89, 0x87, 0xd9, 0x39, 0x12, 0xfd, 0x9d, 0xf9};
constexpr Id kToolsHooks = {0xa0, 0x94, 0x79, 0x8c, 0x2e, 0x74, 0x2e, 0x74,
                            0x93, 0xf2, 0x08, 0x00, 0x20, 0x0c, 0x0a, 0x66};
constexpr Id kToolsTls = {0x42, 0xd8, 0x5a, 0x81, 0x23, 0xf6, 0xcb, 0x47,
                          0x82, 0x98, 0xf6, 0xe7, 0x8a, 0x3a, 0xec, 0xdc};
constexpr Id kStorage = {0xc6, 0x93, 0x33, 0x6e, 0x11, 0x21, 0xdf, 0x11,
                         0xa8, 0xc3, 0x68, 0xf3, 0x55, 0xd8, 0x95, 0x93};
constexpr Id kChecks = {0x26, 0x3e, 0x88, 0x60, 0x7c, 0xd2, 0x61, 0x43,
                        0x92, 0xf6, 0xbb, 0xd5, 0x00, 0x6d, 0xfa, 0x7e};
constexpr Id kValidity = {0xd4, 0x08, 0x20, 0x55, 0xbd, 0xe6, 0x70, 0x4b,
                          0x8d, 0x34, 0xba, 0x12, 0x3c, 0x66, 0xe1, 0xf2};
constexpr Id kStreams = {0x21, 0x31, 0x8c, 0x60, 0x97, 0x14, 0x32, 0x48,
                         0x8c, 0xa6, 0x41, 0xff, 0x73, 0x24, 0xc8, 0xf2};
constexpr Id kTpc = {0x17, 0x34, 0xdc, 0x26, 0x80, 0x0d, 0x47, 0x45,
                     0x87, 0x26, 0xc0, 0xf1, 0xe7, 0xdd, 0x8b, 0xca};
constexpr Id kModules = {0x6e, 0x16, 0x3f, 0xbe, 0xb9, 0x58, 0x44, 0x4d,
                         0x83, 0x5c, 0xe1, 0x82, 0xaf, 0xf1, 0x99, 0x1e};

}  // namespace

TEST_CASE("every served table has its size in slot 0 and no null slot") {
  const std::pair<Id, size_t> expected[] = {
      {kInterface, 13}, {kToolsHooks, 7}, {kToolsTls, 3}, {kChecks, 15},
      {kValidity, 3},   {kStreams, 93},   {kTpc, 17},     {kModules, 99},
  };
  for (const auto& [id, slots] : expected) {
    void* const* table = table_of(id);
    CHECK(reinterpret_cast<size_t>(table[0]) == slots * sizeof(void*));
    for (size_t i = 1; i < slots; ++i) CHECK(table[i] != nullptr);
  }
}

TEST_CASE("an unknown table is refused with 500 and a null table") {
  const Id refused[] = {{0xf8, 0xcf, 0xf9, 0x51, 0x21, 0x46, 0x8b, 0x4e, 0xb9, 0xe2, 0xfb, 0x46,
                         0x9e, 0x7c, 0x0d, 0xd9},
                        {}};
  for (const Id& id : refused) {
    void* const* table = table_of(kInterface);
    CHECK(ask(id, &table) == CUDA_ERROR_NOT_FOUND);
    CHECK(table == nullptr);
  }
  CHECK(tables::get_export_table(nullptr, nullptr) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("a slot that nobody was seen to call fails instead of crashing") {
  CHECK(function_at<CUresult()>(kStreams, 17)() == CUDA_ERROR_NOT_SUPPORTED);
  CHECK(function_at<CUresult()>(kStreams, 17)() == CUDA_ERROR_NOT_SUPPORTED);
}

TEST_CASE("the runtime's interface answers contexts and loads images") {
  CUcontext context = nullptr;
  CHECK(function_at<CUresult(CUcontext*, CUdevice)>(kInterface, 2)(&context, 1) == CUDA_SUCCESS);
  CHECK(context == context_of(101));
  int image = 0;
  CUmodule module = nullptr;
  CHECK(function_at<CUresult(CUmodule*, const void*)>(kInterface, 1)(&module, &image) == 0);
  CHECK(module == static_cast<void*>(&image));
  module = nullptr;
  CHECK(function_at<CUresult(CUmodule*, const void*, void*, void*, size_t)>(kInterface, 6)(
            &module, &image, nullptr, nullptr, 0) == CUDA_SUCCESS);
  CHECK(module == static_cast<void*>(&image));
  module = nullptr;
  CHECK(function_at<CUresult(const void*, CUmodule*, void*, void*, unsigned)>(kInterface, 8)(
            &image, &module, nullptr, nullptr, 0) == CUDA_SUCCESS);
  CHECK(module == static_cast<void*>(&image));
}

TEST_CASE("no tool is attached") {
  for (const auto& [slot, expected] : {std::pair<size_t, size_t>{2, 0x400}, {6, 0xE}}) {
    void* buffer = nullptr;
    size_t size = 0;
    function_at<void(void**, size_t*)>(kToolsHooks, slot)(&buffer, &size);
    REQUIRE(buffer != nullptr);
    CHECK(size == expected);
    // The runtime reads 32-bit words by function number up to that count, not bytes.
    const auto* words = static_cast<const uint32_t*>(buffer);
    CHECK(std::vector<uint32_t>(words, words + size) == std::vector<uint32_t>(size));
  }
  uint32_t flags = 1;
  CHECK(function_at<CUresult(CUcontext, uint32_t*, void**)>(kChecks, 2)(nullptr, &flags, nullptr) ==
        CUDA_SUCCESS);
  CHECK(flags == 0);
  CHECK(function_at<uint32_t()>(kChecks, 3)() == 0);
}

TEST_CASE("context-local storage takes the current context for a null one") {
  const auto put = function_at<CUresult(CUcontext, void*, void*, void*)>(kStorage, 0);
  const auto remove = function_at<CUresult(CUcontext, void*)>(kStorage, 1);
  const auto get = function_at<CUresult(void**, CUcontext, void*)>(kStorage, 2);
  int key = 0;
  int stored = 0;
  void* value = nullptr;
  current = nullptr;
  CHECK(get(&value, nullptr, &key) == CUDA_ERROR_INVALID_CONTEXT);
  current = context_of(5);
  CHECK(get(&value, nullptr, &key) == CUDA_ERROR_INVALID_HANDLE);
  CHECK(put(nullptr, &key, &stored, nullptr) == CUDA_SUCCESS);
  CHECK(get(&value, context_of(5), &key) == CUDA_SUCCESS);
  CHECK(value == &stored);
  CHECK(remove(context_of(5), &key) == CUDA_SUCCESS);
  CHECK(remove(context_of(5), &key) == CUDA_ERROR_INVALID_HANDLE);
  CHECK(put(nullptr, &key, &stored, nullptr) == CUDA_SUCCESS);
  tables::context_destroyed(context_of(5));
  CHECK(get(&value, nullptr, &key) == CUDA_ERROR_INVALID_HANDLE);
  CUcontext context = nullptr;
  CHECK(function_at<CUresult(CUcontext*)>(kToolsTls, 2)(&context) == CUDA_SUCCESS);
  CHECK(context == context_of(5));
}

TEST_CASE("the validity check depends on its arguments and this process") {
  const auto check = function_at<CUresult(uint32_t, uint64_t, uint64_t*)>(kValidity, 1);
  uint64_t first[2] = {};
  uint64_t second[2] = {};
  CHECK(check(13000, 1, first) == CUDA_SUCCESS);
  CHECK(first[0] == 0x3341181C03CB675C);
  CHECK(check(13002, 1, first) == CUDA_SUCCESS);
  CHECK(check(13002, 1, second) == CUDA_SUCCESS);
  CHECK(std::memcmp(first, second, sizeof(first)) == 0);
  CHECK(check(13002, 2, second) == CUDA_SUCCESS);
  CHECK(std::memcmp(first, second, sizeof(first)) != 0);
  CHECK(check(13002, 1, nullptr) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("contexts and streams have numbers") {
  uint64_t id = 0;
  CHECK(function_at<CUresult(CUcontext, uint64_t*)>(kStreams, 4)(context_of(3), &id) == 0);
  CHECK(id == 3);
  const auto object_of = function_at<CUresult(CUcontext, CUstream, void**)>(kStreams, 51);
  void* object = nullptr;
  CHECK(object_of(context_of(3), reinterpret_cast<CUstream>(-1), &object) ==
        CUDA_ERROR_INVALID_HANDLE);
  CHECK(object_of(context_of(3), nullptr, &object) == CUDA_SUCCESS);
  CHECK(object != nullptr);
  id = 99;
  CHECK(function_at<CUresult(CUcontext, void*, uint64_t*)>(kStreams, 39)(context_of(3), object,
                                                                         &id) == CUDA_SUCCESS);
  CHECK(id == 0);
}

TEST_CASE("the TPC table is there only where the device has one") {
  uint8_t* place = nullptr;
  uint8_t* gpc = nullptr;
  const auto get = function_at<CUresult(uint8_t**, uint8_t**)>(kTpc, 4);
  REQUIRE(get(&place, &gpc) == CUDA_SUCCESS);
  CHECK(std::memcmp(place, kPlace, sizeof(kPlace)) == 0);
  CHECK(std::memcmp(gpc, kGpc, sizeof(kGpc)) == 0);
  CHECK(function_at<CUresult(uint8_t*, uint8_t*)>(kTpc, 13)(place, gpc) == CUDA_SUCCESS);
  has_tpc = false;
  void* const* table = nullptr;
  CHECK(ask(kTpc, &table) == CUDA_ERROR_NOT_FOUND);
  CHECK(table == nullptr);
  has_tpc = true;
}

TEST_CASE("a module's functions are handed to the callback") {
  std::vector<CUfunction> seen;
  const auto enumerate =
      function_at<uint64_t(CUcontext, CUmodule, void (*)(void*, CUfunction, uint64_t), void*)>(
          kModules, 7);
  const auto collect = [](void* opaque, CUfunction function, uint64_t) {
    static_cast<std::vector<CUfunction>*>(opaque)->push_back(function);
  };
  CHECK(enumerate(nullptr, nullptr, collect, &seen) == 2);
  CHECK(seen.size() == 2);
}

TEST_CASE("a forked child can still read and write the storage") {
  const auto put = function_at<CUresult(CUcontext, void*, void*, void*)>(kStorage, 0);
  int key = 0;
  CHECK(put(context_of(9), &key, &key, nullptr) == CUDA_SUCCESS);
  const pid_t child = fork();
  if (child == 0) {
    int other = 0;
    _exit(put(context_of(9), &other, &other, nullptr) == CUDA_SUCCESS ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}
