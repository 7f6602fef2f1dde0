// Real kernels, compiled by nvcc, against what C++ computes.
// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "harness.hpp"

using namespace softgpu;
using namespace softgpu::test;

namespace {

std::vector<float> random_floats(size_t n, float low, float high) {
  std::mt19937 generator(7);
  std::uniform_real_distribution<float> pick(low, high);
  std::vector<float> v(n);
  for (float& x : v) x = pick(generator);
  return v;
}

struct Samples : TestDevice {
  Samples() { REQUIRE_MESSAGE(load_file(PTX_DIR "/samples.ptx"), log); }
};

}  // namespace

TEST_CASE("every sample kernel decodes") {
  Samples d;
  for (const std::string& name : d.module()->kernel_names()) {
    CHECK_MESSAGE(d.kernel(name) != nullptr, d.log);
  }
}

TEST_CASE("vector addition stops at the end") {
  Samples d;
  int n = 10'007;
  auto a = random_floats(static_cast<size_t>(n), -1, 1),
       b = random_floats(static_cast<size_t>(n), 0, 9);
  float* c = d.alloc<float>(static_cast<size_t>(n) + 1);
  CHECK_RUN(d.run("vector_add", {40}, {256}, d.upload(a), d.upload(b), c, n));
  int wrong = 0;
  for (int i = 0; i < n; ++i)
    wrong += c[i] != a[static_cast<size_t>(i)] + b[static_cast<size_t>(i)];
  CHECK(wrong == 0);
  CHECK(c[n] == 0);
}

TEST_CASE("matrix multiplication with tiles of 16 and 32") {
  Samples d;
  int ha = 96, wa = 160, wb = 128;
  auto a = random_floats(static_cast<size_t>(ha * wa), 0, 1),
       b = random_floats(static_cast<size_t>(wa * wb), 0, 1);
  for (uint32_t tile : {16u, 32u}) {
    float* c = d.alloc<float>(static_cast<size_t>(ha * wb));
    CHECK_RUN(d.run("matrix_multiply_" + std::to_string(tile), {wb / tile, ha / tile}, {tile, tile},
                    c, d.upload(a), d.upload(b), wa, wb));
    double worst = 0;
    for (int y = 0; y < ha; ++y) {
      for (int x = 0; x < wb; ++x) {
        float sum = 0;  // in the kernel's own order, so the bits agree
        for (int k = 0; k < wa; ++k)
          sum = std::fma(a[size_t(y * wa + k)], b[size_t(k * wb + x)], sum);
        worst = std::max<double>(worst, std::fabs(sum - c[y * wb + x]));
      }
    }
    CHECK(worst == 0);
  }
}

TEST_CASE("reduction by shuffles") {
  Samples d;
  std::vector<int> in(100'003);
  std::iota(in.begin(), in.end(), -500);
  int* out = d.alloc<int>(1);
  CHECK_RUN(d.run("reduce_shuffle", {12}, {192}, d.upload(in), out, static_cast<int>(in.size())));
  CHECK(*out == static_cast<int>(std::accumulate(in.begin(), in.end(), 0LL)));
}

TEST_CASE("histogram with shared and global atomics") {
  Samples d;
  std::vector<unsigned char> in(200'000);
  std::mt19937 generator(3);
  std::vector<unsigned> want(256);
  for (auto& v : in) ++want[v = static_cast<unsigned char>(generator() % 256 * (generator() % 2))];
  unsigned* out = d.alloc<unsigned>(256);
  CHECK_RUN(d.run("histogram", {7}, {256}, d.upload(in), out, static_cast<int>(in.size())));
  CHECK(std::vector<unsigned>(out, out + 256) == want);
}

TEST_CASE("transpose of a size that fits no tile") {
  Samples d;
  int w = 130, h = 71;
  auto in = random_floats(static_cast<size_t>(w * h), 0, 1);
  float* out = d.alloc<float>(static_cast<size_t>(w * h));
  CHECK_RUN(d.run("transpose", {5, 3}, {32, 8}, d.upload(in), out, w, h));
  int wrong = 0;
  for (int y = 0; y < h; ++y) {
    for (int x = 0; x < w; ++x) wrong += out[x * h + y] != in[size_t(y * w + x)];
  }
  CHECK(wrong == 0);
}

TEST_CASE("mandelbrot diverges lane by lane") {
  Samples d;
  int w = 100, h = 70, limit = 100;
  int* out = d.alloc<int>(static_cast<size_t>(w * h));
  CHECK_RUN(d.run("mandelbrot", {7, 5}, {16, 16}, out, w, h, limit));
  int wrong = 0;
  for (int y = 0; y < h; ++y) {
    for (int x = 0; x < w; ++x) {
      float cr = std::fma(3.0f, 1.0f, 0.0f) * float(x) / float(w) - 2.0f;
      float ci = 3.0f * float(y) / float(h) - 1.5f, zr = 0, zi = 0;
      int n = 0;
      while (n < limit && std::fma(zr, zr, zi * zi) < 4.0f) {
        float t = std::fma(zr, zr, -(zi * zi)) + cr;
        zi = std::fma(zr + zr, zi, ci);
        zr = t;
        ++n;
      }
      wrong += std::abs(out[y * w + x] - n) > 2;
    }
  }
  CHECK(wrong < w * h / 50);  // contraction may differ, and with it the last iterations
}

TEST_CASE("softmax with dynamic shared memory") {
  Samples d;
  int columns = 1000;
  auto in = random_floats(size_t(8 * columns), -5, 5);
  float* out = d.alloc<float>(size_t(8 * columns));
  d.dynamic_shared = 128 * 4;
  CHECK_RUN(d.run("softmax", {8}, {128}, d.upload(in), out, columns));
  double worst = 0;
  for (int r = 0; r < 8; ++r) {
    double sum = 0;
    for (int c = 0; c < columns; ++c) sum += std::exp(double(in[size_t(r * columns + c)]));
    for (int c = 0; c < columns; ++c) {
      double want = std::exp(double(in[size_t(r * columns + c)])) / sum;
      worst = std::max(worst, std::fabs(out[r * columns + c] - want) / want);
    }
  }
  CHECK(worst < 1e-4);
}

TEST_CASE("a spin lock within a warp makes progress") {
  Samples d;
  int* lock = d.alloc<int>(1);
  int* counter = d.alloc<int>(1);
  CHECK_RUN(d.run("spin_lock", {8}, {64}, lock, counter));
  CHECK(*counter == 512);
}

TEST_CASE("decoupled look-back") {
  Samples d;
  uint32_t blocks = 60;
  std::vector<int> in(blocks * 256);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<int>(i % 7);
  int* out = d.alloc<int>(in.size());
  CHECK_RUN(d.run("look_back_scan", {blocks}, {256}, d.upload(in), out, d.alloc<int>(blocks),
                  d.alloc<int>(blocks), d.alloc<int>(1)));
  std::vector<int> want(in.size());
  std::partial_sum(in.begin(), in.end(), want.begin());
  CHECK(std::vector<int>(out, out + in.size()) == want);
}

TEST_CASE("a block may wait for one that has not begun") {
  Samples d;
  int* out = d.alloc<int>(20);
  CHECK_RUN(d.run("wait_for_last", {20}, {32}, d.alloc<int>(1), out));
  CHECK(std::accumulate(out, out + 20, 0) == 20);
}

TEST_CASE("the last block sums up") {
  Samples d;
  std::vector<int> in(5000, 3);
  int* out = d.alloc<int>(1);
  CHECK_RUN(d.run("last_block", {40}, {128}, d.upload(in), d.alloc<int>(40), out,
                  d.alloc<unsigned>(1), 5000));
  CHECK(*out == 15000);
}

TEST_CASE("cooperative groups' grid barrier") {
  Samples d;
  int* x = d.alloc<int>(6);
  d.cooperative = true;
  CHECK_RUN(d.run("grid_barrier", {24}, {64}, x, 5));
  CHECK(x[0] == 24 * 64);
  CHECK(x[4] == 24 * 64);
  CHECK(x[5] == 0);
}

TEST_CASE("calls: recursion, pointers, aggregates") {
  Samples d;
  int* out = d.alloc<int>(256);
  CHECK_RUN(d.run("recursion", {1}, {64}, out));
  const int fibonacci[12] = {0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89};
  for (int i = 0; i < 64; ++i) CHECK(out[i] == fibonacci[i % 12]);
  CHECK_RUN(d.run("function_pointers", {1}, {100}, out));
  for (int i = 0; i < 100; ++i) CHECK(out[i] == (i % 3 == 0 ? i + 1 : i % 3 == 1 ? 2 * i : i * i));
  struct Big {
    double v[6];
    int n;
  } big{{1, 2, 3, 4, 5, 6}, 100};
  double* sums = d.alloc<double>(64);
  CHECK_RUN(d.run("aggregates", {1}, {64}, big, sums));
  for (int i = 0; i < 64; ++i) CHECK(sums[i] == 100 + i + 21 + 15 * i);
}

TEST_CASE("local arrays are each lane's own") {
  Samples d;
  int* out = d.alloc<int>(300);
  CHECK_RUN(d.run("local_array", {1}, {300}, out, 50));
  for (int t = 0; t < 300; ++t) {
    int sum = 0;
    for (int i = 0; i < 50; ++i) sum += (i * 7 + t) % 64 * t;
    CHECK(out[t] == sum);
  }
}

TEST_CASE("device printf formats as C does") {
  Samples d;
  CHECK_RUN(d.run("device_printf", {1}, {32}, 7));
  CHECK(d.printed ==
        "thread 0 of 32:  3.50|text  |A|1234567890123|ff|%\n"
        "thread 1 of 32:  3.50|text  |B|1234567890123|ff|%\n");
}

TEST_CASE("device malloc gives memory that other threads see") {
  Samples d;
  int* sums = d.alloc<int>(64);
  CHECK_RUN(d.run("device_malloc", {1}, {64}, d.alloc<int*>(64), sums));
  for (int t = 0; t < 64; ++t) CHECK(sums[t] == (t + 1) % 64 * ((t + 1) % 64 + 1) / 2);
}

TEST_CASE("faults are values, and the next launch is fine") {
  Samples d;
  int* out = d.alloc<int>(64);
  auto fails = [&](Fault fault, Outcome o) {
    CHECK(static_cast<int>(o.fault) == static_cast<int>(fault));
    CHECK(o.detail.find('\n') == std::string::npos);
    MESSAGE(o.detail);
    CHECK_RUN(d.run("symbols", {1}, {8}, out));
  };
  fails(Fault::illegal_address, d.run("wild_store", {4}, {64}, reinterpret_cast<int*>(0x1234560)));
  fails(Fault::illegal_address, d.run("wild_store", {4}, {64}, static_cast<int*>(nullptr)));
  fails(Fault::illegal_address, d.run("wild_store", {1}, {65}, out));
  fails(Fault::misaligned_address,
        d.run("misaligned_load", {1}, {1}, reinterpret_cast<char*>(out), out));
  fails(Fault::launch_failed, d.run("trapping", {2}, {64}, 33));
  fails(Fault::illegal_address, d.run("shared_overrun", {1}, {32}, out, 1 << 20));
  fails(Fault::illegal_address, d.run("stack_overflow", {1}, {1}, out));
  d.printed.clear();
  fails(Fault::assertion, d.run("device_assert", {1}, {64}, 3));
  CHECK(d.printed.find("thread: [3,0,0] Assertion `threadIdx.x != n` failed.") !=
        std::string::npos);
}

TEST_CASE("a kernel that never ends meets the time limit") {
  EngineOptions options;
  options.time_limit_s = 0.05;
  TestDevice d(options);
  REQUIRE(d.load_file(PTX_DIR "/samples.ptx"));
  CHECK(d.run("endless_loop", {3}, {32}, d.alloc<int>(1)).fault == Fault::launch_timeout);
}

TEST_CASE("half and bfloat16 arithmetic") {
  Samples d;
  auto in = random_floats(32, -4, 4);
  float* out = d.alloc<float>(128);
  CHECK_RUN(d.run("half_math", {1}, {32}, d.upload(in), out, 32));
  for (size_t i = 0; i < 32; ++i) {
    CHECK(out[4 * i] == doctest::Approx(in[i] * in[i] + 0.5).epsilon(2e-3));
    CHECK(out[4 * i + 1] == doctest::Approx(in[i] * in[i] + 0.25).epsilon(2e-3));
    CHECK(out[4 * i + 2] == doctest::Approx(in[i] * in[i]).epsilon(2e-2));
    CHECK(out[4 * i + 3] == doctest::Approx(std::max(in[i], 0.f)).epsilon(1e-3));
  }
}

TEST_CASE("wide multiplication with carries") {
  Samples d;
  auto* out = d.alloc<unsigned long long>(5);
  unsigned long long a = 0xfedcba9876543210ull, b = 0xf123456789abcdefull;
  CHECK_RUN(d.run("wide_math", {1}, {1}, out, a, b));
  unsigned __int128 p = static_cast<unsigned __int128>(a) * b;
  unsigned __int128 s = p + ((static_cast<unsigned __int128>(b) << 64) | a);
  CHECK(out[0] == static_cast<uint64_t>(p));
  CHECK(out[1] == static_cast<uint64_t>(p >> 64));
  CHECK(out[2] == static_cast<uint64_t>(s));
  CHECK(out[3] == static_cast<uint64_t>(s >> 64));
  CHECK(out[4] == static_cast<uint64_t>(p >> 64));
}

TEST_CASE("globals and constants keep their values between launches") {
  Samples d;
  int* out = d.alloc<int>(16);
  CHECK_RUN(d.run("symbols", {1}, {16}, out));
  CHECK(out[5] == 49);
  CHECK_RUN(d.run("symbols", {1}, {16}, out));
  CHECK(out[5] == 51);
  const GlobalInfo* counter = d.module()->global("counter");
  REQUIRE(counter);
  CHECK(counter->bytes == 4);
  CHECK(*reinterpret_cast<int*>(counter->address) == 44);
  CHECK(d.module()->global("table")->constant);
}

TEST_CASE("warp functions") {
  Samples d;
  auto* out = d.alloc<unsigned>(64 * 8);
  CHECK_RUN(d.run("warp_functions", {1}, {64}, out));
  for (unsigned t = 0; t < 64; ++t) {
    unsigned lane = t % 32, *o = out + t * 8;
    CHECK(o[0] == 0x49249249u);
    CHECK(o[1] == 0xfu << (lane / 4 * 4));
    CHECK(o[2] == 496);
    CHECK(o[3] == (lane % 8 < 3 ? lane : lane - 3));
    CHECK(o[4] == 1);
    CHECK(o[5] == (lane & 1 ? 0xaaaaaaaau : 16u));
    CHECK(o[6] == (31 - lane) * 2);
    CHECK(o[7] == lane / 4 * 16 + 6);
  }
}

TEST_CASE("lanes that took different ways meet at a shuffle") {
  Samples d;
  int* out = d.alloc<int>(64);
  CHECK_RUN(d.run("divergent_sync", {1}, {64}, out));
  for (int t = 0; t < 64; ++t) {
    int lane = t % 32, other = lane ^ 16;
    int v = other < 16 ? other + other * (other - 1) / 2 : 1000 + other;
    CHECK(out[t] == v);
  }
}

TEST_CASE("barriers that reduce, and threads that leave early") {
  Samples d;
  int* out = d.alloc<int>(512);
  CHECK_RUN(d.run("barrier_functions", {1}, {500}, out));
  for (int t = 0; t < 500; ++t) CHECK(out[t] == 167 * 4 + 3);
  CHECK_RUN(d.run("early_exit", {1}, {300}, out));
  for (int t = 0; t < 100; ++t) CHECK(out[t] == 100);
}

TEST_CASE("the mathematics of libdevice") {
  Samples d;
  std::vector<double> in;
  for (int i = 0; i < 64; ++i) in.push_back(-8 + 0.27 * i);
  double* out = d.alloc<double>(64 * 6);
  CHECK_RUN(d.run("doubles", {1}, {64}, d.upload(in), out));
  for (size_t i = 0; i < 64; ++i) {
    double x = in[i];
    CHECK(out[6 * i] == doctest::Approx(std::exp(x)).epsilon(1e-14));
    CHECK(out[6 * i + 1] == doctest::Approx(std::log(std::fabs(x) + 1)).epsilon(1e-14));
    CHECK(out[6 * i + 2] == doctest::Approx(std::sin(x)).epsilon(1e-14));
    CHECK(out[6 * i + 3] == doctest::Approx(std::pow(std::fabs(x), 1.5)).epsilon(1e-14));
    CHECK(out[6 * i + 4] == doctest::Approx(std::sqrt(std::fabs(x)) / (x + 10)).epsilon(1e-14));
    CHECK(out[6 * i + 5] <= x * x + 1e-17);
  }
  auto fin = random_floats(64, -3, 3);
  float* fout = d.alloc<float>(64 * 6);
  CHECK_RUN(d.run("floats", {1}, {64}, d.upload(fin), fout));
  for (size_t i = 0; i < 64; ++i) {
    double x = fin[i];
    CHECK(fout[6 * i] == doctest::Approx(std::exp(x)).epsilon(1e-5));
    CHECK(fout[6 * i + 1] == doctest::Approx(std::log(std::fabs(x) + 1)).epsilon(1e-5));
    CHECK(fout[6 * i + 2] == doctest::Approx(std::sin(x)).epsilon(1e-5));
    CHECK(fout[6 * i + 3] == doctest::Approx(std::pow(std::fabs(x), 1.5)).epsilon(1e-5));
    CHECK(fout[6 * i + 4] ==
          doctest::Approx(1 / std::sqrt(std::fabs(x) + 1) + std::erf(x)).epsilon(1e-5));
    CHECK(fout[6 * i + 5] == doctest::Approx(std::tanh(x) + std::cbrt(x)).epsilon(1e-5));
  }
}
