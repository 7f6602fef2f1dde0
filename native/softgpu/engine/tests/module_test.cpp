// Parsing, linking and what a module tells about itself.
// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <chrono>

#include "harness.hpp"

using namespace softgpu;
using namespace softgpu::test;

namespace {

const std::string kHead = ".version 8.8\n.target sm_90\n.address_size 64\n";

}  // namespace

TEST_CASE("every form that toolchains emit decodes") {
  std::ifstream file(PTX_DIR "/forms.txt");
  REQUIRE(file);
  std::string line,
      text = kHead +
             ".const .align 8 .b8 cst[64];\n"
             ".func (.param .align 16 .b8 r0[64]) fn(.param .align 16 .b8 a0[64]) { ret; }\n";
  std::vector<std::string> forms;
  while (std::getline(file, line)) {
    text += ".visible .entry k" + std::to_string(forms.size()) +
            "(.param .align 16 .b8 p0[64]) {\n"
            ".reg .pred %p<10>; .reg .b16 %h<10>; .reg .b32 %r<10>; .reg .f32 %f<10>; .reg .b64 "
            "%l<10>; .reg .f64 %d<10>;\n"
            ".param .align 16 .b8 q0[64]; .shared .align 16 .b8 sh[1024];\n" +
            line + "\nL1: ret; }\n";
    forms.push_back(line);
  }
  CHECK(forms.size() > 700);
  TestDevice d;
  REQUIRE_MESSAGE(d.load({text}), d.log);
  for (size_t k = 0; k < forms.size(); ++k) {
    CHECK_MESSAGE(d.kernel("k" + std::to_string(k)) != nullptr, d.log);
  }
}

TEST_CASE("an unknown form fails its kernel alone, with text and line") {
  TestDevice d;
  REQUIRE(
      d.load({kHead + ".visible .entry good() { ret; }\n.visible .entry bad() {\n.reg .b32 %r<3>;\n"
                      "frobnicate.u32 %r1, %r2;\nret; }\n"}));
  CHECK(d.kernel("good") != nullptr);
  CHECK(d.kernel("bad") == nullptr);
  CHECK(d.log.find("frobnicate.u32 %r1, %r2;") != std::string::npos);
  CHECK(d.log.find("line 7") != std::string::npos);
  CHECK(d.kernel("absent") == nullptr);
  CHECK(d.log.empty());
}

TEST_CASE("malformed texts are refused with a reason") {
  const char* const texts[] = {
      ".visible .entry k( { ret; }",
      ".visible .entry k() { ret; ",
      ".global .u32 x[4] = {1,2,3,nothing};",
      ".extern .global .u32 absent;",
      "garbage",
      ".global .align 3 .u32 x;",
      ".func f(",
      ".global .b8 x[99999999999999][99999999999];",
      "\"",
      ".visible .entry k(.param .u32 p",
      "{",
      ".target",
  };
  for (const char* text : texts) {
    TestDevice d;
    bool loaded = d.load({kHead + text});
    CHECK_MESSAGE((!loaded && !d.log.empty()), std::string(text));
  }
  const char* const bodies[] = {
      "bra NOWHERE;",
      "add.s32 %r1, %r2;",
      "add.s32 %r1, %l1, %r2;",
      "ld.global.u32 %r1, [nothing];",
      "mov.u32 %r1, %nothing;",
      "call nobody;",
      "@%r1 ret;",
      "{",
      "}",
      "add.s32 %r1, %r2, %r3",
      "ld.global.v2.u32 %r1, [%l1];",
      "setp.lt.and.s32 %p1, %r1, %r2;",
      "brx.idx %r1, nothing;",
      "st.u32 [%h1], %r1;",
      "mov.b64 {%r1}, %l1;",
      "shl.b32 %r1, %r2, 1.5.;",
      "X: X: ret;",
  };
  for (const char* body : bodies) {
    TestDevice d;
    bool loaded = d.load({kHead +
                          ".visible .entry k() {.reg .pred %p<4>; .reg .b16 %h<4>; .reg .b32 "
                          "%r<4>; .reg .b64 %l<4>;\n" +
                          body + "\nret; }"});
    CHECK_MESSAGE((!loaded || (d.kernel("k") == nullptr && !d.log.empty())), std::string(body));
  }
}

TEST_CASE("several texts link into one module") {
  TestDevice d;
  std::string a =
      kHead +
      ".extern .global .u32 shared_value;\n.extern .func (.param .b32 r) helper(.param .b32 x);\n"
      ".global .u32 own = 1;\n.weak .global .u32 twice_there = 7;\n"
      ".visible .entry main_kernel(.param .u64 out) { .reg .b32 %r<9>; .reg .b64 %l<3>;\n"
      "ld.param.u64 %l1, [out]; ld.global.u32 %r1, [shared_value]; ld.global.u32 %r4, [own]; "
      "ld.global.u32 %r5, [twice_there];\n"
      "{ .param .b32 p; st.param.b32 [p], %r1; .param .b32 q; call.uni (q), helper, (p); "
      "ld.param.b32 %r2, [q]; }\n"
      "add.u32 %r2, %r2, %r4; add.u32 %r2, %r2, %r5; st.global.u32 [%l1], %r2; ret; }\n";
  std::string b = kHead +
                  ".visible .global .u32 shared_value = 40;\n.global .u32 own = 1000;\n.weak "
                  ".global .u32 twice_there = 7;\n"
                  ".visible .global .align 8 .u64 pointers[3] = {shared_value, "
                  "generic(shared_value)+4, helper};\n"
                  ".visible .func (.param .b32 r) helper(.param .b32 x) { .reg .b32 %r<4>; "
                  "ld.param.b32 %r1, [x]; ld.global.u32 %r2, [own];\n"
                  "add.u32 %r1, %r1, %r2; st.param.b32 [r], %r1; ret; }\n";
  REQUIRE_MESSAGE(d.load({a, b}), d.log);
  auto* out = d.alloc<uint32_t>(1);
  CHECK_RUN(d.run("main_kernel", {1}, {1}, out));
  CHECK(*out == 40 + 1000 + 1 + 7);
  auto* pointers = reinterpret_cast<uint64_t*>(d.module()->global("pointers")->address);
  CHECK(pointers[0] == d.module()->global("shared_value")->address);
  CHECK(pointers[1] == pointers[0] + 4);
  CHECK_FALSE(d.load({a}));
  CHECK(d.log.find("shared_value") != std::string::npos);
  CHECK_FALSE(
      d.load({kHead + ".visible .global .u32 x = 1;", kHead + ".visible .global .u32 x = 2;"}));
}

TEST_CASE("a kernel tells its layout") {
  TestDevice d;
  REQUIRE(d.load(
      {".version 8.0\n.target sm_75\n.address_size 64\n.const .align 4 .b8 table[20];\n.extern "
       ".shared .align 16 .b8 dynamic[];\n"
       ".visible .entry k(.param .u8 a, .param .u64 b, .param .align 4 .b8 c[12], .param .u16 d)\n"
       ".maxntid 128, 2, 1\n.minnctapersm 2\n{ .reg .b32 %r<4>; .shared .align 4 .b8 s[100]; "
       ".local .align 8 .b8 depot[40];\n"
       "mov.u32 %r1, s; mov.u32 %r2, dynamic; st.shared.u32 [%r2], %r1; ret; }"}));
  const KernelInfo& info = kernel_info(*d.kernel("k"));
  REQUIRE(info.params.size() == 4);
  CHECK(info.params[1].offset == 8);
  CHECK(info.params[2].offset == 16);
  CHECK(info.params[2].size == 12);
  CHECK(info.params[3].offset == 28);
  CHECK(info.param_bytes == 30);
  CHECK(info.static_shared_bytes == 112);
  CHECK(info.local_bytes >= 40);
  CHECK(info.const_bytes == 20);
  CHECK(info.max_threads == 256);
  CHECK(info.target_sm == 75);
}

TEST_CASE("debug information is skipped") {
  TestDevice d;
  REQUIRE_MESSAGE(
      d.load({"\n\n.version 8.0\n.target sm_80, debug\n.address_size 64\n.file 1 \"x.cu\"\n"
              ".visible .entry k() {\n.loc 1 2 3\n.reg .b32 %r<2>;\n$L__a:\n.loc 1 3 1, "
              "function_name $L__info, inlined_at 1 2 3\n"
              "mov.u32 %r1, 1;\nret;\n}\n.section .debug_abbrev\n{\n.b8 1\n.b8 2, 3\n.b32 "
              ".debug_info\n$L__info:\n}\n"}),
      d.log);
  CHECK(d.kernel("k") != nullptr);
}

TEST_CASE("a module of many kernels is indexed without being parsed") {
  std::ifstream file(PTX_DIR "/samples.ptx");
  std::stringstream text;
  text << file.rdbuf();
  std::string body = text.str(), all = kHead;
  size_t begin = body.find(".visible .entry mandelbrot"), end = body.find("\n}", begin) + 2;
  std::string one = body.substr(begin, end - begin);
  for (int k = 0; all.size() < (8u << 20); ++k) {
    std::string copy = one;
    for (size_t at = 0; (at = copy.find("mandelbrot", at)) != std::string::npos; at += 3)
      copy.replace(at, 10, "m" + std::to_string(k));
    all += copy + "\n";
  }
  TestDevice d;
  auto start = std::chrono::steady_clock::now();
  REQUIRE_MESSAGE(d.load({all}), d.log);
  MESSAGE(
      "index of "
      << all.size() << " bytes: "
      << std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count()
      << " ms");
  CHECK(d.module()->kernel_names().size() > 1000);
  CHECK(d.kernel("m17") != nullptr);
}

TEST_CASE("the address space cuts and merges") {
  AddressSpace space;
  space.add({0x1000, 0x1000});
  space.add({0x2000, 0x1000});
  CHECK(space.contains(0x1ff0, 0x20));
  space.remove({0x1800, 0x100});
  CHECK(space.contains(0x17ff, 1));
  CHECK_FALSE(space.contains(0x17ff, 2));
  CHECK_FALSE(space.contains(0x1880, 1));
  CHECK(space.contains(0x1900, 0x1700));
  CHECK_FALSE(space.contains(0x1900, 0x1701));
  CHECK_FALSE(space.contains(~uint64_t{0} - 3, 8));
  space.remove({0, 0x10000});
  CHECK_FALSE(space.contains(0x1000, 1));
}
