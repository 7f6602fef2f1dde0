// Kernel parameters lie where the kernel's layout says, in both forms of a launch.
// SPDX-License-Identifier: Apache-2.0
#include "shim/cuda/parameters.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

using namespace outboard;

namespace {

std::vector<std::byte> write(const shim::Function& function, void** parameters,
                             const std::byte* buffer) {
  std::vector<std::byte> field(wire::field_bytes(function.parameters_bytes), std::byte{0xee});
  wire::Writer writer(field.data());
  shim::write_parameters(writer, &function, parameters, buffer);
  CHECK(writer.size() == field.size());
  return field;
}

void lay_out(shim::Function* function, std::vector<shim::Function::Parameter> parameters) {
  function->parameter_count = static_cast<uint32_t>(parameters.size());
  function->parameters.reset(new shim::Function::Parameter[parameters.size()]);
  for (size_t i = 0; i < parameters.size(); ++i) function->parameters[i] = parameters[i];
  if (!parameters.empty()) {
    function->parameters_bytes = parameters.back().offset + parameters.back().bytes;
  }
}

}  // namespace

TEST_CASE("parameters are packed at their offsets with zero gaps") {
  shim::Function function;
  lay_out(&function, {{0, 1}, {8, 8}, {16, 4}});
  uint8_t small = 0xab;
  uint64_t large = 0x1122334455667788;
  uint32_t last = 0x99aabbcc;
  void* parameters[] = {&small, &large, &last};
  const auto field = write(function, parameters, nullptr);
  std::byte expected[32] = {};
  const uint32_t bytes = 20;
  std::memcpy(expected, &bytes, 4);
  std::memcpy(expected + 8, &small, 1);
  std::memcpy(expected + 16, &large, 8);
  std::memcpy(expected + 24, &last, 4);
  REQUIRE(field.size() == sizeof expected);
  CHECK(std::memcmp(field.data(), expected, sizeof expected) == 0);
}

TEST_CASE("a kernel without parameters makes an empty field") {
  const shim::Function function;
  CHECK(write(function, nullptr, nullptr).size() == 8);
}

TEST_CASE("the buffer form is taken as it is, and only what makes sense") {
  shim::Function function;
  lay_out(&function, {{0, 4}, {4, 4}});
  uint32_t content[2] = {3, 4};
  size_t bytes = sizeof content;
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, content, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
                   CU_LAUNCH_PARAM_END};
  const std::byte* buffer = nullptr;
  size_t read = 0;
  REQUIRE(shim::read_extra(extra, &buffer, &read) == CUDA_SUCCESS);
  CHECK(read == 8);
  const auto field = write(function, nullptr, buffer);
  CHECK(std::memcmp(field.data() + 8, content, sizeof content) == 0);
  void* odd[] = {reinterpret_cast<void*>(0x77), content, CU_LAUNCH_PARAM_END};
  CHECK(shim::read_extra(odd, &buffer, &read) == CUDA_ERROR_INVALID_VALUE);
}
