// Prints milliseconds per launch of a few kernels: best and median, and processor time of all
// threads. SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <functional>

#include "harness.hpp"

using namespace softgpu;
using namespace softgpu::test;

namespace {

/// Processor time of all threads: what counts on a machine that others use as well.
double cpu_ms() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) / 1e6;
}

void measure(const char* name, int rounds, const std::function<Outcome()>& run) {
  std::vector<double> ms, cpu;
  for (int r = 0; r < rounds; ++r) {
    double cpu_start = cpu_ms();
    auto start = std::chrono::steady_clock::now();
    Outcome o = run();
    ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
                     .count());
    cpu.push_back(cpu_ms() - cpu_start);
    if (o.fault != Fault::none) {
      std::printf("%s: %s\n", name, o.detail.c_str());
      return;
    }
  }
  std::sort(ms.begin(), ms.end());
  std::sort(cpu.begin(), cpu.end());
  std::printf("%-28s best %9.4f ms   median %9.4f ms   processor %9.4f ms\n", name, ms.front(),
              ms[ms.size() / 2], cpu.front());
}

}  // namespace

int main(int argc, char** argv) {
  EngineOptions options;
  if (argc > 1) options.threads = std::atoi(argv[1]);
  TestDevice d(options);
  if (!d.load_file(PTX_DIR "/samples.ptx")) {
    std::printf("%s\n", d.log.c_str());
    return 1;
  }
  auto* a = d.alloc<float>(4 << 20);
  auto* b = d.alloc<float>(4 << 20);
  auto* c = d.alloc<float>(4 << 20);
  for (int i = 0; i < 4 << 20; ++i) a[i] = b[i] = static_cast<float>(i % 1000) / 1000;
  auto* ints = reinterpret_cast<int*>(a);
  measure("empty-ish (1 block of 32)", 50,
          [&] { return d.run("vector_add", {1}, {32}, a, b, c, 32); });
  measure("matrixMul block 32", 15,
          [&] { return d.run("matrix_multiply_32", {20, 10}, {32, 32}, c, a, b, 320, 640); });
  measure("matrixMul block 16", 15,
          [&] { return d.run("matrix_multiply_16", {40, 20}, {16, 16}, c, a, b, 320, 640); });
  measure("vectorAdd 4 Mi", 10,
          [&] { return d.run("vector_add", {16384}, {256}, a, b, c, 4 << 20); });
  measure("transpose 1000x700", 10,
          [&] { return d.run("transpose", {32, 22}, {32, 8}, a, c, 1000, 700); });
  measure("reduction by shuffles 1 Mi", 10,
          [&] { return d.run("reduce_shuffle", {64}, {256}, ints, ints + (2 << 20), 1 << 20); });
  measure("histogram 1 Mi", 10, [&] {
    return d.run("histogram", {64}, {256}, reinterpret_cast<unsigned char*>(b),
                 reinterpret_cast<unsigned*>(c), 1 << 20);
  });
  measure("mandelbrot 512x512", 10,
          [&] { return d.run("mandelbrot", {32, 32}, {16, 16}, ints, 512, 512, 200); });
  d.dynamic_shared = 1024;
  measure("softmax 256x1000", 10, [&] { return d.run("softmax", {256}, {256}, b, c, 1000); });
  return 0;
}
