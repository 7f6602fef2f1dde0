// The JIT linker: small inputs, and inputs and an image that are larger than any message.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <fstream>

#include "driver.hpp"

namespace {

constexpr const char* kCaller = R"(
.version 7.0
.target sm_70
.address_size 64
.extern .func (.param .b32 result) twice(.param .b32 value);
.visible .entry apply(.param .u64 at, .param .u32 value) {
  .reg .b32 %r<3>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [at];
  ld.param.u32 %r1, [value];
  {
    .param .b32 argument;
    .param .b32 answer;
    st.param.b32 [argument], %r1;
    call.uni (answer), twice, (argument);
    ld.param.b32 %r2, [answer];
  }
  st.global.u32 [%rd1], %r2;
  ret;
}
)";

constexpr const char* kCallee = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .func (.param .b32 result) twice(.param .b32 value) {
  .reg .b32 %r<3>;
  ld.param.b32 %r1, [value];
  add.s32 %r2, %r1, %r1;
  st.param.b32 [result], %r2;
  ret;
}
)";

// A kernel nobody calls, of about `bytes` bytes of text that stays in the image: data.
std::string ballast(size_t bytes) {
  std::string text = ".version 7.0\n.target sm_70\n.address_size 64\n";
  for (int part = 0; text.size() < bytes; ++part) {
    text += ".visible .global .align 4 .b32 ballast_" + std::to_string(part) + "[64] = {";
    for (int i = 0; i < 64; ++i) text += std::to_string(1000000 + part + i) + (i < 63 ? ", " : "");
    text += "};\n";
  }
  return text;
}

void add_text(CUlinkState state, const char* text, const char* name) {
  CHECK(cuLinkAddData(state, CU_JIT_INPUT_PTX, const_cast<char*>(text), std::strlen(text) + 1, name,
                      0, nullptr, nullptr));
}

int run(CUmodule module, int value) {
  CUfunction apply = nullptr;
  CHECK(cuModuleGetFunction(&apply, module, "apply"));
  CUdeviceptr out = allocate(sizeof(int));
  void* arguments[] = {&out, &value};
  CHECK(cuLaunchKernel(apply, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments, nullptr));
  const int result = download(out, 1)[0];
  CHECK(cuMemFree(out));
  return result;
}

// Links caller, callee and so much more; the callee comes from a file.
void link(Program& program, size_t ballast_bytes) {
  char log[4096] = {};
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  CUlinkState state = nullptr;
  CHECK(cuLinkCreate(2, options, values, &state));
  add_text(state, kCaller, "caller");
  const std::string path = "/tmp/callee-" + std::to_string(getpid()) + ".ptx";
  std::ofstream(path) << kCallee;
  CHECK(cuLinkAddFile(state, CU_JIT_INPUT_PTX, path.c_str(), 0, nullptr, nullptr));
  std::remove(path.c_str());
  const std::string more = ballast_bytes != 0 ? ballast(ballast_bytes) : std::string();
  if (!more.empty()) add_text(state, more.c_str(), "ballast");
  void* image = nullptr;
  size_t bytes = 0;
  CHECK(cuLinkComplete(state, &image, &bytes));
  program.expect(image != nullptr && bytes >= ballast_bytes / 8, "the image has everything in it");
  CUmodule module = nullptr;
  CHECK(cuModuleLoadData(&module, image));
  CHECK(cuLinkDestroy(state));
  const int result = run(module, 21);
  program.expect(result == 42, "what was linked runs");
  program.save(&result, sizeof result);
  CHECK(cuModuleUnload(module));
}

// The driver may refuse the input when it is added or when it is linked.
void malformed(Program& program) {
  char log[4096] = {};
  CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  CUlinkState state = nullptr;
  CHECK(cuLinkCreate(2, options, values, &state));
  char text[] = ".version 7.0\n.target sm_70\n.address_size 64\nthis is no PTX\n";
  CUresult result =
      cuLinkAddData(state, CU_JIT_INPUT_PTX, text, sizeof text, "malformed", 0, nullptr, nullptr);
  void* image = nullptr;
  size_t bytes = 0;
  if (result == CUDA_SUCCESS) result = cuLinkComplete(state, &image, &bytes);
  program.expect(result != CUDA_SUCCESS, "what is no PTX is refused");
  program.expect(log[0] != '\0', "and the log says why");
  CHECK(cuLinkDestroy(state));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("jitLink", argc, argv);
  const Device device;
  link(program, 0);
  link(program, 3 << 20);
  malformed(program);
  return program.finish();
}
