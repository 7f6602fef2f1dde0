// Barriers by number and count, asynchronous copies, mbarriers, jump tables, scopes, vector
// atomics. SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <numeric>
#include <thread>

#include "harness.hpp"

using namespace softgpu;
using namespace softgpu::test;

namespace {

/// A kernel with one pointer, `body` and plenty of registers.
std::string kernel_text(const std::string& body) {
  return ".version 8.8\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 out) {\n"
         ".reg .pred %p<10>; .reg .b16 %h<10>; .reg .b32 %r<20>; .reg .f32 %f<10>; .reg .b64 "
         "%l<10>;\n"
         ".shared .align 16 .b8 sh[4096];\n"
         "ld.param.u64 %l1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %l2, %r1, 4; add.u64 %l2, "
         "%l1, %l2;\n" +
         body + "\nret; }\n";
}

}  // namespace

TEST_CASE("producers arrive, consumers wait") {
  TestDevice d;  // warp 0 fills, warps 1 to 9 wait for it at barrier 3 (320 threads)
  REQUIRE(d.load({kernel_text(
      "mov.u32 %r2, sh; setp.ge.u32 %p1, %r1, 32; @%p1 bra WAIT;\n"
      "shl.b32 %r3, %r1, 2; add.u32 %r3, %r2, %r3; add.u32 %r4, %r1, 500; st.shared.u32 [%r3], "
      "%r4;\n"
      "bar.arrive 3, 320; bra DONE;\n"
      "WAIT: bar.sync 3, 320; and.b32 %r5, %r1, 31; shl.b32 %r5, %r5, 2; add.u32 %r5, %r2, %r5;\n"
      "ld.shared.u32 %r6, [%r5]; st.global.u32 [%l2], %r6;\nDONE:")}));
  auto* out = d.alloc<uint32_t>(320);
  CHECK_RUN(d.run("k", {2}, {320}, out));
  for (uint32_t t = 32; t < 320; ++t) CHECK(out[t] == 500 + t % 32);
}

TEST_CASE("a barrier is one barrier wherever its threads stand") {
  TestDevice d;
  REQUIRE(d.load(
      {kernel_text("and.b32 %r2, %r1, 1; setp.eq.u32 %p1, %r2, 0; mov.u32 %r3, sh; @%p1 bra EVEN;\n"
                   "atom.shared.add.u32 %r4, [%r3], 1; bar.sync 0; bra JOIN;\n"
                   "EVEN: atom.shared.add.u32 %r4, [%r3], 100; bar.sync 0;\n"
                   "JOIN: ld.shared.u32 %r5, [%r3]; st.global.u32 [%l2], %r5;")}));
  auto* out = d.alloc<uint32_t>(600);
  CHECK_RUN(d.run("k", {1}, {600}, out));
  for (uint32_t t = 0; t < 600; ++t) CHECK(out[t] == 300 * 101);
}

TEST_CASE("threads that wait for nobody are reported, not waited for") {
  TestDevice d;
  REQUIRE(d.load({kernel_text("setp.eq.u32 %p1, %r1, 0; @%p1 bar.sync 1, 64;")}));
  Outcome o = d.run("k", {1}, {32}, d.alloc<uint32_t>(32));
  CHECK(o.fault == Fault::launch_timeout);
}

TEST_CASE("cp.async copies and fills with zeros") {
  TestDevice d;
  REQUIRE(
      d.load({kernel_text("mov.u32 %r2, sh; shl.b32 %r3, %r1, 4; add.u32 %r4, %r2, %r3; "
                          "cvt.u64.u32 %l3, %r3; add.u64 %l3, %l1, %l3;\n"
                          "mov.u32 %r5, 8; cp.async.ca.shared.global [%r4], [%l3+1024], 16, %r5; "
                          "cp.async.commit_group; cp.async.wait_group 0;\n"
                          "bar.sync 0; ld.shared.v4.u32 {%r6, %r7, %r8, %r9}, [%r4]; "
                          "st.global.v4.u32 [%l3], {%r6, %r7, %r8, %r9};")}));
  std::vector<uint32_t> in(512, 7);
  uint32_t* out = d.upload(in);
  CHECK_RUN(d.run("k", {1}, {64}, out));
  for (int t = 0; t < 64; ++t) {
    CHECK(out[4 * t] == 7);
    CHECK(out[4 * t + 1] == 7);
    CHECK(out[4 * t + 2] == 0);
    CHECK(out[4 * t + 3] == 0);
  }
}

TEST_CASE("an mbarrier turns its phase when all have arrived") {
  TestDevice d;
  REQUIRE(d.load(
      {kernel_text("mov.u32 %r2, sh; setp.eq.u32 %p1, %r1, 0; mov.u32 %r3, 96; @%p1 "
                   "mbarrier.init.shared.b64 [%r2], %r3;\n"
                   "bar.sync 0; add.u32 %r7, %r2, 64; atom.shared.add.u32 %r8, [%r7], 1;\n"
                   "mbarrier.arrive.shared.b64 %l3, [%r2];\n"
                   "WAIT: mbarrier.test_wait.shared.b64 %p2, [%r2], %l3; @!%p2 bra WAIT;\n"
                   "ld.shared.u32 %r9, [%r7]; st.global.u32 [%l2], %r9;\n"
                   "mbarrier.arrive.shared.b64 %l4, [%r2];\n"
                   "WAIT2: mbarrier.try_wait.parity.shared.b64 %p2, [%r2], 1; @!%p2 bra WAIT2;")}));
  auto* out = d.alloc<uint32_t>(96);
  CHECK_RUN(d.run("k", {1}, {96}, out));
  for (int t = 0; t < 96; ++t) CHECK(out[t] == 96);
}

TEST_CASE("jump tables, nested scopes and redeclared names") {
  TestDevice d;
  REQUIRE_MESSAGE(
      d.load({kernel_text(
          "T: .branchtargets A, B, C;\nrem.u32 %r2, %r1, 3; brx.idx %r2, T;\n"
          "A: mov.u32 %r3, 10; bra END;\nB: mov.u32 %r3, 20; bra END;\nC: mov.u32 %r3, 30;\n"
          "END: { .reg .u32 r0; .reg .pred p; shfl.sync.idx.b32 r0|p, %r3, 0, 31, -1; { .reg .u32 "
          "r0; mov.u32 r0, 5; add.u32 %r3, %r3, r0; }\n"
          " @p add.u32 %r3, %r3, r0; }\nst.global.u32 [%l2], %r3;")}),
      d.log);
  auto* out = d.alloc<uint32_t>(64);
  CHECK_RUN(d.run("k", {1}, {64}, out));
  for (uint32_t t = 0; t < 64; ++t)
    CHECK(out[t] == 10 * (t % 3 + 1) + 5 + 10 * (t / 32 * 32 % 3 + 1));
}

TEST_CASE("vector, half and floating-point atomics from many threads") {
  TestDevice d;
  REQUIRE_MESSAGE(d.load({kernel_text(
                      "mov.f32 %f1, 0f3F800000; mov.f32 %f2, 0f40000000;\n"
                      "red.global.v2.f32.add [%l1], {%f1, %f2}; atom.global.add.f64 %l3, [%l1+8], "
                      "0d3FE0000000000000;\n"
                      "mov.u32 %r2, 0x3c003c00; atom.global.add.noftz.f16x2 %r3, [%l1+16], %r2;\n"
                      "atom.global.inc.u32 %r4, [%l1+20], 9; red.global.max.s32 [%l1+24], %r1; "
                      "atom.add.u32 %r5, [%l1+28], 1;")}),
                  d.log);
  auto* out = d.alloc<float>(64);
  CHECK_RUN(d.run("k", {8}, {128}, out));
  CHECK(out[0] == 1024);
  CHECK(out[1] == 2048);
  double sum;
  std::memcpy(&sum, out + 2, 8);
  CHECK(sum == 512);
  auto* bits = reinterpret_cast<uint32_t*>(out);
  CHECK(bits[4] == 0x64006400u);  // 1024 in both halves
  CHECK(bits[5] == 1024 % 10);
  CHECK(bits[6] == 127);
  CHECK(bits[7] == 1024);
}

TEST_CASE("generic addresses reach shared, local and parameter memory") {
  TestDevice d;
  REQUIRE_MESSAGE(
      d.load({kernel_text(".local .align 8 .b8 depot[16];\n"
                          "mov.u64 %l3, sh; cvta.shared.u64 %l3, %l3; mul.wide.u32 %l4, %r1, 4; "
                          "add.u64 %l3, %l3, %l4; st.u32 [%l3], %r1;\n"
                          "mov.u64 %l5, depot; cvta.local.u64 %l5, %l5; add.u32 %r2, %r1, 1000; "
                          "st.u32 [%l5+4], %r2;\n"
                          "mov.u64 %l6, out; cvta.param.u64 %l6, %l6; ld.u64 %l7, [%l6];\n"
                          "ld.u32 %r3, [%l3]; ld.local.u32 %r4, [depot+4]; ld.u32 %r5, [%l5+4]; "
                          "add.u32 %r3, %r3, %r4; add.u32 %r3, %r3, %r5;\n"
                          "isspacep.shared %p1, %l3; @%p1 add.u32 %r3, %r3, 1; isspacep.local %p1, "
                          "%l5; @%p1 add.u32 %r3, %r3, 1;\n"
                          "isspacep.global %p1, %l1; @%p1 add.u32 %r3, %r3, 1; isspacep.global "
                          "%p1, %l3; @%p1 add.u32 %r3, %r3, 100;\n"
                          "add.u64 %l7, %l7, %l4; st.u32 [%l7], %r3;")}),
      d.log);
  auto* out = d.alloc<uint32_t>(300);
  CHECK_RUN(d.run("k", {1}, {300}, out));
  for (uint32_t t = 0; t < 300; ++t) CHECK(out[t] == 3 * t + 2003);
}

TEST_CASE("a kernel that polls host memory sees the host's word") {
  TestDevice d;
  REQUIRE(
      d.load({kernel_text("WAIT: ld.volatile.global.u32 %r2, [%l1]; setp.eq.u32 %p1, %r2, 0; @%p1 "
                          "bra WAIT; st.global.u32 [%l1+4], 1;")}));
  auto* out = d.alloc<uint32_t>(64);
  std::thread host([&] { __atomic_store_n(out, 1, __ATOMIC_RELEASE); });
  CHECK_RUN(d.run("k", {1}, {32}, out));
  host.join();
  CHECK(out[1] == 1);
}

TEST_CASE("cancel ends a kernel") {
  TestDevice d;
  REQUIRE(
      d.load({kernel_text("WAIT: ld.volatile.global.u32 %r2, [%l1]; st.volatile.global.u32 "
                          "[%l1+4], 1; setp.eq.u32 %p1, %r2, 0; @%p1 bra WAIT;")}));
  auto* out = d.alloc<uint32_t>(64);
  std::thread host([&] {
    while (__atomic_load_n(out + 1, __ATOMIC_ACQUIRE) == 0) std::this_thread::yield();
    d.engine()->cancel();
  });
  CHECK(d.run("k", {1}, {32}, out).fault == Fault::launch_failed);
  host.join();
}
