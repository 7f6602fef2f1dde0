// While one thread captures a stream, another allocates: what each capture mode allows.
// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include "driver.hpp"

namespace {

// What cuMemAlloc answers in another thread, whose own mode is the given one.
CUresult allocate_elsewhere(const Device& device, CUstreamCaptureMode own_mode) {
  CUresult result = CUDA_ERROR_UNKNOWN;
  std::thread other([&] {
    CHECK(cuCtxSetCurrent(device.context()));
    CUstreamCaptureMode mode = own_mode;
    CHECK(cuThreadExchangeStreamCaptureMode(&mode));
    CUdeviceptr address = 0;
    result = cuMemAlloc(&address, 4096);
    if (result == CUDA_SUCCESS) CHECK(cuMemFree(address));
  });
  other.join();
  return result;
}

void capture_and_launch(Program& program, const Device& device, CUstreamCaptureMode mode,
                        CUresult expected, const char* promise) {
  constexpr int kCount = 512;
  const CUdeviceptr memory = upload(std::vector<int>(kCount, 1));
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuStreamBeginCapture(stream, mode));
  device.launch_step(memory, kCount, 3, stream);
  const CUresult answer = allocate_elsewhere(device, CU_STREAM_CAPTURE_MODE_GLOBAL);
  program.expect(answer == expected, promise);
  if (answer != expected) std::fprintf(stderr, "got %d\n", static_cast<int>(answer));
  program.expect(allocate_elsewhere(device, CU_STREAM_CAPTURE_MODE_RELAXED) == CUDA_SUCCESS,
                 "a thread that is relaxed may always allocate");
  device.launch_step(memory, kCount, 3, stream);
  CUgraph graph = nullptr;
  CHECK(cuStreamEndCapture(stream, &graph));
  program.expect(download(memory, kCount) == std::vector<int>(kCount, 1),
                 "what is captured does not run");
  CUgraphExec executable = nullptr;
  CHECK(cuGraphInstantiate(&executable, graph, 0));
  CHECK(cuGraphLaunch(executable, stream));
  CHECK(cuGraphLaunch(executable, stream));
  CHECK(cuStreamSynchronize(stream));
  const std::vector<int> out = download(memory, kCount);
  program.expect(out == std::vector<int>(kCount, stepped(1, 3, 4)), "each launch runs it once");
  program.save(out);
  CHECK(cuGraphExecDestroy(executable));
  CHECK(cuGraphDestroy(graph));
  CHECK(cuStreamDestroy(stream));
  CHECK(cuMemFree(memory));
}

// A call that the mode forbids invalidates the capture: it ends with an error, and only then.
void forbidden_in_own_thread(Program& program, const Device& device) {
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  CUdeviceptr address = 0;
  program.expect(cuMemAlloc(&address, 4096) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                 "the capturing thread may not allocate (900)");
  CUgraph graph = nullptr;
  program.expect(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                 "the capture is invalid after that (901)");
  program.expect(graph == nullptr, "and gives no graph");
  const CUdeviceptr memory = upload(std::vector<int>(64, 1));
  device.launch_step(memory, 64, 2, stream);
  CHECK(cuStreamSynchronize(stream));
  program.expect(download(memory, 64) == std::vector<int>(64, 3), "the stream works again");
  CHECK(cuMemFree(memory));
  CHECK(cuStreamDestroy(stream));
}

void wait_while_capturing(Program& program) {
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
  CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
  CHECK(cuStreamIsCapturing(stream, &status));
  program.expect(status == CU_STREAM_CAPTURE_STATUS_ACTIVE, "the stream says that it captures");
  program.expect(cuStreamSynchronize(stream) == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                 "a capturing stream cannot be waited for (900)");
  CUgraph graph = nullptr;
  program.expect(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                 "that invalidates its capture too (901)");
  CHECK(cuStreamDestroy(stream));
}

// A forbidden call from another thread is refused, and spoils a global capture.
void global_capture(Program& program, const Device& device) {
  CUstream stream = nullptr;
  CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  CHECK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
  program.expect(allocate_elsewhere(device, CU_STREAM_CAPTURE_MODE_GLOBAL) ==
                     CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                 "while a thread captures globally, no other may allocate (900)");
  CUgraph graph = nullptr;
  program.expect(cuStreamEndCapture(stream, &graph) == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                 "the attempt invalidates the global capture (901)");
  CHECK(cuStreamDestroy(stream));
}

}  // namespace

int main(int argc, char** argv) {
  Program program("captureModes", argc, argv);
  const Device device;
  capture_and_launch(program, device, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, CUDA_SUCCESS,
                     "while a thread captures for itself, another may allocate");
  capture_and_launch(program, device, CU_STREAM_CAPTURE_MODE_RELAXED, CUDA_SUCCESS,
                     "while a thread captures relaxed, another may allocate");
  forbidden_in_own_thread(program, device);
  wait_while_capturing(program);
  global_capture(program, device);
  return program.finish();
}
