// Random programs give the same results whether all lanes run together or apart.
// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <random>

#include "harness.hpp"

using namespace softgpu;
using namespace softgpu::test;

namespace {

constexpr unsigned kLanes = 256;

/// Straight-line code over %r0..%r7, %l0..%l3 and a predicate, with loads and stores of own memory.
std::string random_body(std::mt19937& g) {
  auto r = [&] { return "%r" + std::to_string(g() % 8); };
  auto l = [&] { return "%l" + std::to_string(g() % 4); };
  std::string s;
  for (int k = 0; k < 40; ++k) {
    std::string guard = g() % 4 == 0 ? (g() % 2 ? "@%p " : "@!%p ") : "";
    std::string row = "[%own+" + std::to_string(g() % 8 * 4) + "]";
    std::string line;
    switch (g() % 14) {
      case 0:
        line = "add.s32 " + r() + ", " + r() + ", " + r();
        break;
      case 1:
        line = "mul.lo.s32 " + r() + ", " + r() + ", " + std::to_string(g() % 1000);
        break;
      case 2:
        line = "xor.b32 " + r() + ", " + r() + ", " + r();
        break;
      case 3:
        line = "shf.l.wrap.b32 " + r() + ", " + r() + ", " + r() + ", " + r();
        break;
      case 4:
        line = "setp.lt.s32 %p, " + r() + ", " + r();
        break;
      case 5:
        line = "selp.b32 " + r() + ", " + r() + ", " + r() + ", %p";
        break;
      case 6:
        line = "mad.wide.u32 " + l() + ", " + r() + ", " + r() + ", " + l();
        break;
      case 7:
        line = "cvt.u32.u64 " + r() + ", " + l();
        break;
      case 8:
        line = "add.s64 " + l() + ", " + l() + ", " + l();
        break;
      case 9:
        line = "st.global.u32 " + row + ", " + r();
        break;
      case 10:
        line = "ld.global.u32 " + r() + ", " + row;
        break;
      case 11:
        line = "add.cc.u32 " + r() + ", " + r() + ", " + r();
        break;
      case 12:
        line = "addc.u32 " + r() + ", " + r() + ", " + r();
        break;
      default:
        line = "div.u32 " + r() + ", " + r() + ", " + r();
        break;
    }
    s += guard + line + ";\n";
    if (g() % 10 == 0) {  // a branch over what follows
      std::string label = "L" + std::to_string(k);
      s += "@%p bra " + label + ";\nnot.b32 " + r() + ", " + r() + ";\nadd.s32 " + r() + ", " +
           r() + ", 7;\n" + label + ":\n";
    }
  }
  return s;
}

/// The body in a loop; lanes whose number and `apart` share bits wait for their turn in it.
std::string program(const std::string& body) {
  std::string s =
      ".version 8.0\n.target sm_80\n.address_size 64\n"
      ".visible .entry k(.param .u64 memory, .param .u32 apart) {\n"
      ".reg .b32 %r<8>, %who, %apart, %turn, %mine; .reg .b64 %l<4>, %own; .reg .pred %p, %q, %z;\n"
      "ld.param.u64 %own, [memory]; ld.param.u32 %apart, [apart]; mov.u32 %who, %tid.x;\n"
      "mad.wide.u32 %own, %who, 64, %own; and.b32 %mine, %who, %apart; mov.u32 %turn, 0;\n"
      "setp.eq.u32 %p, %who, 3; add.cc.u32 %r0, %who, 0;\n";
  for (int k = 0; k < 8; ++k)
    s += "mad.lo.u32 %r" + std::to_string(k) + ", %who, " + std::to_string(77777 + k * 131) + ", " +
         std::to_string(k) + ";\n";
  for (int k = 0; k < 4; ++k)
    s += "cvt.u64.u32 %l" + std::to_string(k) + ", %r" + std::to_string(k) + ";\n";
  s += "TURN: setp.ne.u32 %q, %turn, %mine;\n@%q bra NEXT;\n" + body +
       "NEXT: add.u32 %turn, %turn, 1; setp.le.u32 %z, %turn, %apart; @%z bra TURN;\n";
  for (int k = 0; k < 8; ++k)
    s += "st.global.u32 [%own+" + std::to_string(32 + k * 4) + "], %r" + std::to_string(k) + ";\n";
  return s + "ret;\n}\n";
}

}  // namespace

TEST_CASE("random programs agree, masked and unmasked") {
  unsigned first = std::getenv("SOFTGPU_TEST_SEED")
                       ? static_cast<unsigned>(std::atoi(std::getenv("SOFTGPU_TEST_SEED")))
                       : 20'000;
  for (unsigned seed = first; seed < first + 60; ++seed) {
    std::mt19937 g(seed);
    TestDevice d;
    std::string text = program(random_body(g));
    REQUIRE_MESSAGE(d.load({text}), d.log);
    std::vector<uint32_t> results[3];
    const unsigned apart[3] = {0, 3, 96};  // together; four turns within a warp; warps apart
    for (int k = 0; k < 3; ++k) {
      auto* memory = d.alloc<uint32_t>(kLanes * 16);
      CHECK_RUN(d.run("k", {1}, {kLanes}, memory, apart[k]));
      results[k].assign(memory, memory + kLanes * 16);
    }
    CHECK_MESSAGE(results[0] == results[1], "seed " << seed << "\n" << text);
    CHECK_MESSAGE(results[0] == results[2], "seed " << seed << "\n" << text);
    if (results[0] != results[1] || results[0] != results[2]) break;
  }
}
