// Graphs, captures, links and waits on memory, by the names that programs built for older toolkits
// have in them.
// SPDX-License-Identifier: Apache-2.0
#define __CUDA_API_VERSION_INTERNAL  // every name means itself
#include <cuda.h>
#include <unistd.h>

#include <fstream>

#include "../program.hpp"

#define CHECK(call) check((call), #call)

namespace {

void check(CUresult result, const char* call) {
  if (result == CUDA_SUCCESS) return;
  std::fprintf(stderr, "%s: %d\n", call, static_cast<int>(result));
  std::exit(1);
}

// add(at, value): *at += value.
constexpr const char* kAdd = R"(
.version 7.0
.target sm_70
.address_size 64
.visible .entry add(.param .u64 at, .param .u32 value) {
  .reg .b32 %r<4>;
  .reg .b64 %rd<2>;
  ld.param.u64 %rd1, [at];
  ld.param.u32 %r1, [value];
  ld.global.u32 %r2, [%rd1];
  add.s32 %r3, %r1, %r2;
  st.global.u32 [%rd1], %r3;
  ret;
}
)";

// Linked from a text and a file by the first linker's names.
CUmodule linked() {
  const std::string path = "/tmp/older-" + std::to_string(getpid()) + ".ptx";
  std::ofstream(path) << ".version 7.0\n.target sm_70\n.address_size 64\n"
                         ".visible .entry unused() { ret; }\n";
  CUlinkState state = nullptr;
  CHECK(cuLinkCreate(0, nullptr, nullptr, &state));
  CHECK(cuLinkAddData(state, CU_JIT_INPUT_PTX, const_cast<char*>(kAdd), std::strlen(kAdd) + 1,
                      "add", 0, nullptr, nullptr));
  CHECK(cuLinkAddFile(state, CU_JIT_INPUT_PTX, path.c_str(), 0, nullptr, nullptr));
  std::remove(path.c_str());
  void* image = nullptr;
  size_t bytes = 0;
  CHECK(cuLinkComplete(state, &image, &bytes));
  CUmodule module = nullptr;
  CHECK(cuModuleLoadData(&module, image));
  CHECK(cuLinkDestroy(state));
  return module;
}

int read(CUdeviceptr word) {
  int value = 0;
  CHECK(cuMemcpyDtoH_v2(&value, word, sizeof value));
  return value;
}

struct Add {
  CUdeviceptr at;
  int value;
  void* pointers[2] = {&at, &value};
  CUDA_KERNEL_NODE_PARAMS_v1 params{};

  Add(CUfunction function, CUdeviceptr word, int by) : at(word), value(by) {
    params.func = function;
    params.gridDimX = params.gridDimY = params.gridDimZ = 1;
    params.blockDimX = params.blockDimY = params.blockDimZ = 1;
    params.kernelParams = pointers;
  }
  Add(const Add&) = delete;
  Add& operator=(const Add&) = delete;
};

void built(Program& program, CUfunction function, CUdeviceptr word, CUstream stream) {
  CUcontext context = nullptr;
  CHECK(cuCtxGetCurrent(&context));
  CUgraph graph = nullptr;
  CHECK(cuGraphCreate(&graph, 0));
  CUDA_MEMSET_NODE_PARAMS fill{};
  fill.dst = word;
  fill.value = 10;
  fill.elementSize = 4;
  fill.width = fill.height = 1;
  CUgraphNode first = nullptr, second = nullptr, third = nullptr;
  CHECK(cuGraphAddMemsetNode(&first, graph, nullptr, 0, &fill, context));
  const Add add_1(function, word, 1), add_2(function, word, 2);
  CHECK(cuGraphAddKernelNode(&second, graph, nullptr, 0, &add_1.params));
  CHECK(cuGraphAddDependencies(graph, &first, &second, 1));
  CUgraphNodeParams params{};
  params.type = CU_GRAPH_NODE_TYPE_EMPTY;
  CHECK(cuGraphAddNode(&third, graph, &second, 1, &params));
  CUgraphNode from[4] = {}, to[4] = {};
  size_t count = 4;
  CHECK(cuGraphGetEdges(graph, from, to, &count));
  program.expect(count == 2, "there are two edges");
  count = 4;
  CHECK(cuGraphNodeGetDependencies(second, from, &count));
  program.expect(count == 1 && from[0] == first, "what a node waits for");
  count = 4;
  CHECK(cuGraphNodeGetDependentNodes(second, to, &count));
  program.expect(count == 1 && to[0] == third, "what waits for it");
  CHECK(cuGraphRemoveDependencies(graph, &second, &third, 1));
  CUDA_KERNEL_NODE_PARAMS_v1 told{};
  CHECK(cuGraphKernelNodeGetParams(second, &told));
  program.expect(told.func == function && *static_cast<int*>(told.kernelParams[1]) == 1,
                 "a kernel's parameters come back");
  CHECK(cuGraphKernelNodeSetParams(second, &add_2.params));

  CUgraphExec executable = nullptr, other = nullptr;
  CUgraphNode wrong = second;
  char log[64] = {'?'};
  CHECK(cuGraphInstantiate(&executable, graph, &wrong, log, sizeof log));
  program.expect(wrong == nullptr && log[0] == '\0', "nothing was wrong with the graph");
  CHECK(cuGraphInstantiate_v2(&other, graph, nullptr, nullptr, 0));
  CHECK(cuGraphExecDestroy(other));
  CHECK(cuGraphLaunch(executable, stream));
  CHECK(cuStreamSynchronize(stream));
  int result = read(word);
  program.expect(result == 12, "10 + 2");
  program.save(&result, sizeof result);
  CHECK(cuGraphExecKernelNodeSetParams(executable, second, &add_1.params));
  fill.value = 30;
  CHECK(cuGraphExecMemsetNodeSetParams(executable, first, &fill, context));
  CHECK(cuGraphLaunch(executable, stream));
  CHECK(cuStreamSynchronize(stream));
  result = read(word);
  program.expect(result == 31, "30 + 1");
  program.save(&result, sizeof result);
  CUgraphExecUpdateResult update = CU_GRAPH_EXEC_UPDATE_ERROR;
  CHECK(cuGraphExecUpdate(executable, graph, &wrong, &update));
  program.expect(update == CU_GRAPH_EXEC_UPDATE_SUCCESS, "the whole graph is taken over");
  CHECK(cuGraphLaunch(executable, stream));
  CHECK(cuStreamSynchronize(stream));
  program.expect(read(word) == 12, "10 + 2 again");
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
}

void captured(Program& program, CUfunction function, CUdeviceptr word, CUstream stream) {
  const Add add_5(function, word, 5);
  CHECK(cuStreamBeginCapture(stream));
  CHECK(cuMemsetD32Async(word, 1, 1, stream));
  CHECK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, add_5.params.kernelParams, nullptr));
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  cuuint64_t id = 0;
  CHECK(cuStreamGetCaptureInfo(stream, &status, &id));
  program.expect(status == CU_STREAM_CAPTURE_STATUS_ACTIVE, "the stream captures");
  CUgraph graph = nullptr;
  const CUgraphNode* last = nullptr;
  size_t count = 0;
  CHECK(cuStreamGetCaptureInfo_v2(stream, &status, &id, &graph, &last, &count));
  CUgraphNode node = count == 1 ? last[0] : nullptr;
  CHECK(cuStreamUpdateCaptureDependencies(stream, &node, 1, CU_STREAM_SET_CAPTURE_DEPENDENCIES));
  CUgraph ended = nullptr;
  CHECK(cuStreamEndCapture(stream, &ended));
  program.expect(ended == graph, "the graph is the one that was told");
  CUgraphExec executable = nullptr;
  CHECK(cuGraphInstantiateWithFlags(&executable, graph, 0));
  CHECK(cuGraphLaunch(executable, stream));
  CHECK(cuStreamSynchronize(stream));
  program.expect(read(word) == 6, "1 + 5");
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
}

void words(Program& program, CUdevice device, CUdeviceptr memory, CUstream stream) {
  int is_served =
      0;  // drivers of today have these under their older names only if they are told to
  CHECK(cuDeviceGetAttribute(&is_served, CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1, device));
  if (is_served == 0) return;
  CUstreamBatchMemOpParams write{};
  write.writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
  write.writeValue.address = memory;
  write.writeValue.value = 3;
  CHECK(cuStreamBatchMemOp(stream, 1, &write, 0));
  CHECK(cuStreamWaitValue32(stream, memory, 3, CU_STREAM_WAIT_VALUE_EQ));
  CHECK(cuStreamWriteValue64(stream, memory + 8, 70, 0));
  CHECK(cuStreamWaitValue64(stream, memory + 8, 64, CU_STREAM_WAIT_VALUE_GEQ));
  CHECK(cuStreamWriteValue32(stream, memory, 4, 0));
  CHECK(cuStreamSynchronize(stream));
  program.expect(read(memory) == 4 && read(memory + 8) == 70, "words are written in order");
}

void contexts(Program& program, CUdevice device) {
  CUcontext first = nullptr, second = nullptr;
  CHECK(cuCtxCreate_v2(&first, 0, device));
  CHECK(cuCtxCreate_v3(&second, nullptr, 0, 0, device));
  CUdevice told = -1;
  CHECK(cuCtxGetDevice_v2(&told, first));
  program.expect(told == device, "a context knows its device");
  CHECK(cuCtxSynchronize_v2(first));
  CHECK(cuCtxDestroy_v2(second));
  CHECK(cuCtxDestroy_v2(first));
  void* function = nullptr;
  CHECK(cuGetProcAddress("cuMemAlloc", &function, 12000, CU_GET_PROC_ADDRESS_DEFAULT));
  program.expect(function != nullptr, "functions are found by their names");
}

}  // namespace

int main(int argc, char** argv) {
  Program program("olderGraphNames", argc, argv);
  CHECK(cuInit(0));
  CUdevice device = 0;
  CUcontext context = nullptr, of_stream = nullptr;
  CHECK(cuDeviceGet(&device, 0));
  CHECK(cuDevicePrimaryCtxRetain(&context, device));
  CHECK(cuCtxSetCurrent(context));
  contexts(program, device);
  CHECK(cuCtxSetCurrent(context));
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CUgreenCtx green = nullptr;
  CHECK(cuStreamGetCtx_v2(stream, &of_stream, &green));
  program.expect(of_stream == context && green == nullptr, "a stream knows its context");
  CUdeviceptr memory = 0;
  CHECK(cuMemAlloc_v2(&memory, 64));
  const CUmodule module = linked();
  CUfunction add = nullptr;
  CHECK(cuModuleGetFunction(&add, module, "add"));
  built(program, add, memory, stream);
  captured(program, add, memory, stream);
  words(program, device, memory, stream);
  CHECK(cuCtxSynchronize());
  CHECK(cuModuleUnload(module));
  CHECK(cuMemFree_v2(memory));
  CHECK(cuStreamDestroy(stream));
  CHECK(cuDevicePrimaryCtxRelease_v2(device));
  return program.finish();
}
