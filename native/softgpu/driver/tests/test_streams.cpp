// Streams, events, waits for values, host functions: what happens in which order.
// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <thread>

#include "support.hpp"

namespace {

/// A word of pinned memory that host and device share.
struct Word {
  uint32_t* host = nullptr;
  CUdeviceptr device = 0;
  Word() {
    OK(cuMemHostAlloc(reinterpret_cast<void**>(&host), 64, 0));
    OK(cuMemHostGetDevicePointer(&device, host, 0));
    *host = 0;
  }
  void set(uint32_t value) { __atomic_store_n(host, value, __ATOMIC_RELEASE); }
  uint32_t get() const { return __atomic_load_n(host, __ATOMIC_ACQUIRE); }
};

}  // namespace

TEST_CASE("a stream waits for a value that the host writes later") {
  OwnContext own;
  Word gate, result;
  CUstream stream;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  OK(cuStreamWaitValue32(stream, gate.device, 5, CU_STREAM_WAIT_VALUE_GEQ));
  OK(cuStreamWriteValue32(stream, result.device, 9, 0));
  CHECK(cuStreamQuery(stream) == CUDA_ERROR_NOT_READY);
  CHECK(result.get() == 0);
  gate.set(4);
  CHECK(cuStreamQuery(stream) == CUDA_ERROR_NOT_READY);
  gate.set(6);
  OK(cuStreamSynchronize(stream));
  CHECK(result.get() == 9);
  OK(cuStreamDestroy(stream));
}

TEST_CASE("conditions of waits: equal, and, nor, cyclic greater or equal") {
  OwnContext own;
  Word gate;
  CUstream stream;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  auto passes = [&](uint32_t word, uint32_t value, unsigned flags) {
    gate.set(word);
    OK(cuStreamWaitValue32(stream, gate.device, value, flags));
    OK(cuStreamSynchronize(stream));
  };
  passes(3, 3, CU_STREAM_WAIT_VALUE_EQ);
  passes(6, 2, CU_STREAM_WAIT_VALUE_AND);
  passes(1, 2, CU_STREAM_WAIT_VALUE_NOR);
  passes(1, 0xfffffff0, CU_STREAM_WAIT_VALUE_GEQ);
  CHECK(cuStreamWaitValue32(stream, 0x1000, 0, 0) == CUDA_ERROR_INVALID_VALUE);
}

TEST_CASE("one blocked stream does not hold up another") {
  OwnContext own;
  CUfunction f = kernel(load(kKernels), "store");
  Word gate, first, second;
  CUstream blocked, free;
  OK(cuStreamCreate(&blocked, CU_STREAM_NON_BLOCKING));
  OK(cuStreamCreate(&free, CU_STREAM_NON_BLOCKING));
  OK(cuStreamWaitValue32(blocked, gate.device, 1, CU_STREAM_WAIT_VALUE_EQ));
  OK(run_one(f, blocked, first.device, 1u));
  OK(run_one(f, free, second.device, 1u));
  OK(cuStreamSynchronize(free));
  CHECK(second.get() == 1);
  CHECK(first.get() == 0);
  gate.set(1);
  OK(cuStreamSynchronize(blocked));
  CHECK(first.get() == 1);
}

TEST_CASE("the legacy stream waits for blocking streams, and they for it") {
  OwnContext own;
  CUfunction f = kernel(load(kKernels), "increment");
  Word gate;
  CUdeviceptr counter;
  OK(cuMemAlloc(&counter, 4));
  OK(cuMemsetD32(counter, 0, 1));
  CUstream blocking;
  OK(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
  OK(cuStreamWaitValue32(blocking, gate.device, 1, CU_STREAM_WAIT_VALUE_EQ));
  OK(run_one(f, blocking, counter));
  OK(run_one(f, nullptr, counter));
  OK(run_one(f, blocking, counter));
  CHECK(cuStreamQuery(nullptr) == CUDA_ERROR_NOT_READY);
  gate.set(1);
  OK(cuStreamSynchronize(blocking));
  CHECK(read<unsigned>(counter) == 3);
}

TEST_CASE("an event orders streams, and is complete when its place is reached") {
  OwnContext own;
  Word gate, result;
  CUstream a, b;
  CUevent event;
  OK(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
  OK(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
  OK(cuEventCreate(&event, 0));
  OK(cuEventQuery(event));  // never recorded
  OK(cuStreamWaitValue32(a, gate.device, 1, CU_STREAM_WAIT_VALUE_EQ));
  OK(cuEventRecord(event, a));
  OK(cuStreamWaitEvent(b, event, 0));
  OK(cuStreamWriteValue32(b, result.device, 1, 0));
  CHECK(cuEventQuery(event) == CUDA_ERROR_NOT_READY);
  CHECK(result.get() == 0);
  gate.set(1);
  OK(cuEventSynchronize(event));
  OK(cuStreamSynchronize(b));
  CHECK(result.get() == 1);
  OK(cuEventDestroy(event));
  CHECK(cuEventQuery(event) == CUDA_ERROR_INVALID_HANDLE);
}

TEST_CASE("elapsed time lies between two records") {
  OwnContext own;
  CUevent start, end, silent;
  OK(cuEventCreate(&start, 0));
  OK(cuEventCreate(&end, 0));
  OK(cuEventCreate(&silent, CU_EVENT_DISABLE_TIMING));
  float ms = -1;
  CHECK(cuEventElapsedTime(&ms, start, end) == CUDA_ERROR_INVALID_HANDLE);
  OK(cuEventRecord(start, nullptr));
  OK(cuEventRecord(end, nullptr));
  OK(cuEventSynchronize(end));
  OK(cuEventElapsedTime(&ms, start, end));
  CHECK(ms >= 0);
  OK(cuEventRecord(silent, nullptr));
  CHECK(cuEventElapsedTime(&ms, start, silent) == CUDA_ERROR_INVALID_HANDLE);
}

TEST_CASE("host functions run in order, and may not call CUDA") {
  OwnContext own;
  struct Seen {
    std::atomic<int> calls{0};
    CUresult inner = CUDA_SUCCESS;
  } seen;
  CUstream stream;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  OK(cuLaunchHostFunc(
      stream,
      [](void* data) {
        auto* s = static_cast<Seen*>(data);
        CUdeviceptr p;
        s->inner = cuMemAlloc(&p, 4);
        s->calls = 1;
      },
      &seen));
  OK(cuStreamAddCallback(
      stream,
      [](CUstream, CUresult status, void* data) {
        auto* s = static_cast<Seen*>(data);
        if (status == CUDA_SUCCESS && s->calls == 1) s->calls = 2;
      },
      &seen, 0));
  OK(cuStreamSynchronize(stream));
  CHECK(seen.calls == 2);
  CHECK(seen.inner == CUDA_ERROR_NOT_PERMITTED);
}

TEST_CASE("a kernel polls host memory that is written later") {
  OwnContext own;
  CUfunction f = kernel(load(kKernels), "spin");
  Word gate;
  CUstream stream;
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  OK(run_one(f, stream, gate.device));
  CHECK(cuStreamQuery(stream) == CUDA_ERROR_NOT_READY);
  gate.set(1);
  OK(cuStreamSynchronize(stream));
}

TEST_CASE("each thread has a default stream of its own") {
  OwnContext own;
  unsigned long long main_id = 0, other_id = 0;
  OK(cuStreamGetId(CU_STREAM_PER_THREAD, &main_id));
  std::thread([&] {
    OK(cuCtxSetCurrent(own.context));
    OK(cuStreamGetId(CU_STREAM_PER_THREAD, &other_id));
    CUdeviceptr p;
    OK(cuMemAlloc(&p, 4));
    OK(cuMemsetD32Async(p, 5, 1, CU_STREAM_PER_THREAD));
    OK(cuStreamSynchronize(CU_STREAM_PER_THREAD));
  }).join();
  CHECK(main_id != other_id);
  unsigned long long legacy_id = 0;
  OK(cuStreamGetId(nullptr, &legacy_id));
  CHECK(legacy_id != main_id);
}

TEST_CASE("a context that is destroyed ends waits that nobody will satisfy") {
  Word* gate = nullptr;
  {
    OwnContext own;
    gate = new Word;
    CUstream stream;
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuStreamWaitValue32(stream, gate->device, 1, CU_STREAM_WAIT_VALUE_EQ));
  }
  delete gate;
}

TEST_CASE("freeing waits for the kernels that came before") {
  OwnContext own;
  CUmodule module = load(kKernels);
  Word gate;
  CUstream stream;
  CUdeviceptr p;
  OK(cuMemAlloc(&p, 4));
  OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
  OK(cuStreamWaitValue32(stream, gate.device, 1, CU_STREAM_WAIT_VALUE_EQ));
  OK(run_one(kernel(module, "store"), stream, p, 1u));
  std::thread opener([&] { gate.set(1); });
  OK(cuMemFree(p));
  CHECK(gate.get() == 1);
  opener.join();
  OK(cuCtxSynchronize());
}
