// Fat binaries, linking, and what is refused.
// SPDX-License-Identifier: Apache-2.0
#include <zstd.h>

#include <cstring>

#include "support.hpp"

namespace {

std::string ptx(int sm, int value, const char* name = "answer") {
  return ".version 7.0\n.target sm_" + std::to_string(sm) + "\n.address_size 64\n.visible .entry " +
         name +
         "(.param .u64 p)\n{\n .reg .b64 %rd<2>;\n .reg .b32 %r<2>;\n ld.param.u64 %rd1, [p];\n"
         " mov.u32 %r1, " +
         std::to_string(value) + ";\n st.global.u32 [%rd1], %r1;\n ret;\n}\n";
}

enum class Packing { raw, zstd, lz4 };

/// LZ4 that uses literals alone, which any decoder must take.
std::string lz4(const std::string& text) {
  std::string out;
  size_t n = text.size();
  out.push_back(static_cast<char>(n < 15 ? n << 4 : 0xf0));
  if (n >= 15) {
    size_t rest = n - 15;
    for (; rest >= 255; rest -= 255) out.push_back(static_cast<char>(255));
    out.push_back(static_cast<char>(rest));
  }
  return out + text;
}

void entry(std::string* body, uint16_t kind, uint32_t arch, const std::string& text,
           Packing packing) {
  std::string payload = text;
  uint64_t flags = 0x11;
  if (packing == Packing::zstd) {
    payload.resize(ZSTD_compressBound(text.size()));
    payload.resize(ZSTD_compress(payload.data(), payload.size(), text.data(), text.size(), 3));
    flags |= 0x8000;
  } else if (packing == Packing::lz4) {
    payload = lz4(text);
    flags |= 0x2000;
  }
  uint32_t compressed = packing == Packing::raw ? 0 : static_cast<uint32_t>(payload.size());
  payload.resize((payload.size() + 7) / 8 * 8, '\0');
  char header[0x50] = {};
  uint16_t version = 0x0101;
  uint32_t header_bytes = sizeof header;
  uint64_t padded = payload.size(), unpacked = text.size();
  std::memcpy(header, &kind, 2);
  std::memcpy(header + 2, &version, 2);
  std::memcpy(header + 4, &header_bytes, 4);
  std::memcpy(header + 8, &padded, 8);
  std::memcpy(header + 0x10, &compressed, 4);
  std::memcpy(header + 0x1c, &arch, 4);
  std::memcpy(header + 0x28, &flags, 8);
  std::memcpy(header + 0x38, &unpacked, 8);
  body->append(header, sizeof header);
  body->append(payload);
}

std::string container(const std::string& body) {
  char header[16] = {};
  uint32_t magic = 0xba55ed50;
  uint16_t version = 1, header_bytes = 16;
  uint64_t bytes = body.size();
  std::memcpy(header, &magic, 4);
  std::memcpy(header + 4, &version, 2);
  std::memcpy(header + 6, &header_bytes, 2);
  std::memcpy(header + 8, &bytes, 8);
  return std::string(header, sizeof header) + body;
}

struct Wrapper {
  uint32_t magic = 0x466243b1;
  uint32_t version;
  const void* data;
  const void* more;
};

unsigned answer(CUmodule module, const char* name = "answer") {
  CUdeviceptr p;
  OK(cuMemAlloc(&p, 4));
  OK(run_one(kernel(module, name), nullptr, p));
  return read<unsigned>(p);
}

}  // namespace

TEST_CASE("of several PTX texts the one that fits the device best is taken") {
  OwnContext own;
  std::string body;
  for (Packing packing : {Packing::raw, Packing::zstd, Packing::lz4}) {
    CAPTURE(static_cast<int>(packing));
    body.clear();
    entry(&body, 2, 80, std::string(64, 'x'), Packing::raw);
    entry(&body, 1, 90, ptx(90, 90), packing);
    entry(&body, 1, 70, ptx(70, 70), packing);
    entry(&body, 1, 75, ptx(75, 75), packing);
    CHECK(answer(load(container(body).data())) == 75);
  }
  body.clear();
  entry(&body, 1, 120, ptx(120, 120), Packing::raw);
  entry(&body, 1, 90, ptx(90, 90), Packing::raw);
  CHECK(answer(load(container(body).data())) == 90);
}

TEST_CASE("a wrapper leads to its container; relocatable code to a list that is linked") {
  OwnContext own;
  std::string first, second;
  entry(&first, 1, 80, ptx(80, 1, "one"), Packing::zstd);
  entry(&second, 1, 80, ptx(80, 2, "two"), Packing::raw);
  first = container(first);
  second = container(second);
  Wrapper plain{0x466243b1, 1, first.data(), nullptr};
  CHECK(answer(load(&plain), "one") == 1);
  const void* list[] = {first.data(), second.data(), nullptr};
  std::string empty = container("");
  Wrapper linked{0x466243b1, 2, empty.data(), list};
  CUmodule module = load(&linked);
  CHECK(answer(module, "one") == 1);
  CHECK(answer(module, "two") == 2);
  Wrapper stub{0x466243b1, 2, empty.data(), nullptr};
  unsigned count = 1;
  OK(cuModuleGetFunctionCount(&count, load(&stub)));
  CHECK(count == 0);
}

TEST_CASE("machine code alone is refused, with the reason in the log") {
  OwnContext own;
  std::string body;
  entry(&body, 2, 86, std::string(64, 'x'), Packing::raw);
  std::string image = container(body);
  char log[512] = {};
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  CUmodule module;
  CHECK(cuModuleLoadDataEx(&module, image.data(), 2, options, values) ==
        CUDA_ERROR_NO_BINARY_FOR_GPU);
  CHECK(std::strstr(log, "sm_86") != nullptr);
  CHECK(std::strstr(log, "-gencode") != nullptr);
}

TEST_CASE("rubbish is refused, whatever it looks like") {
  OwnContext own;
  CUmodule module;
  CHECK(cuModuleLoadData(&module, nullptr) == CUDA_ERROR_INVALID_VALUE);
  CHECK(cuModuleLoadData(&module, "rubbish") == CUDA_ERROR_INVALID_IMAGE);
  CHECK(cuModuleLoadData(&module, "") == CUDA_ERROR_INVALID_IMAGE);
  CHECK(cuModuleLoadData(&module, ".version 7.0\n.target sm_80\nnonsense\n") ==
        CUDA_ERROR_INVALID_PTX);
  std::string body;
  entry(&body, 1, 80, ptx(80, 1), Packing::zstd);
  std::string image = container(body);
  // An entry whose compressed bytes are damaged counts as none; nothing crashes.
  for (size_t at = 16; at < image.size(); ++at) {
    std::string bad = image;
    bad[at] = static_cast<char>(bad[at] ^ 0x41);
    if (cuModuleLoadData(&module, bad.data()) == CUDA_SUCCESS) OK(cuModuleUnload(module));
  }
}

TEST_CASE("PTX texts are linked into an image that loads") {
  OwnContext own;
  std::string caller =
      ".version 7.0\n.target sm_80\n.address_size 64\n"
      ".extern .func (.param .b32 r) helper();\n"
      ".visible .entry answer(.param .u64 p)\n{\n .reg .b64 %rd<2>;\n .reg .b32 %r<2>;\n"
      " ld.param.u64 %rd1, [p];\n { .param .b32 out; call (out), helper; "
      "ld.param.b32 %r1, [out]; }\n st.global.u32 [%rd1], %r1;\n ret;\n}\n";
  std::string helper =
      ".version 7.0\n.target sm_80\n.address_size 64\n"
      ".visible .func (.param .b32 r) helper()\n{\n .reg .b32 %r<2>;\n mov.u32 %r1, 321;\n"
      " st.param.b32 [r], %r1;\n ret;\n}\n";
  CUlinkState link;
  void* image = nullptr;
  size_t bytes = 0;
  OK(cuLinkCreate(0, nullptr, nullptr, &link));
  OK(cuLinkAddData(link, CU_JIT_INPUT_PTX, caller.data(), caller.size(), "caller", 0, nullptr,
                   nullptr));
  SUBCASE("all there") {
    OK(cuLinkAddData(link, CU_JIT_INPUT_PTX, helper.data(), helper.size(), "helper", 0, nullptr,
                     nullptr));
    OK(cuLinkComplete(link, &image, &bytes));
    CHECK(bytes > 0);
    std::vector<char> copy(static_cast<char*>(image), static_cast<char*>(image) + bytes);
    OK(cuLinkDestroy(link));
    CHECK(answer(load(copy.data())) == 321);
  }
  SUBCASE("a function is missing") {
    CUresult result = cuLinkComplete(link, &image, &bytes);
    if (result == CUDA_SUCCESS) {  // found out when the kernel is asked for
      CUfunction f;
      CHECK(cuModuleGetFunction(&f, load(image), "answer") == CUDA_ERROR_INVALID_PTX);
    }
  }
  SUBCASE("machine code cannot be linked") {
    char cubin[64] = {0x7f, 'E', 'L', 'F'};
    CHECK(cuLinkAddData(link, CU_JIT_INPUT_CUBIN, cubin, sizeof cubin, "cubin", 0, nullptr,
                        nullptr) == CUDA_ERROR_NO_BINARY_FOR_GPU);
  }
}
