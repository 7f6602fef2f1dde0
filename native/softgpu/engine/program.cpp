// Binds decoded programs to a number of lanes.
// SPDX-License-Identifier: Apache-2.0
#include "program.hpp"

#include <bit>
#include <cstdlib>
#include <cstring>

namespace softgpu::simt {
namespace {

SlotRef scale(SlotRef s, uint32_t lanes) {
  return s == kNoSlot ? s : (s >> 2) * lanes | (s & 3);
}

}  // namespace

std::unique_ptr<BoundProgram> bind_program(const Program& program, uint32_t lanes) {
  auto b = std::make_unique<BoundProgram>();
  b->lanes = lanes;
  b->ops = program.ops;
  for (Op& op : b->ops) {
    op.predicate = scale(op.predicate, lanes);
    op.d = scale(op.d, lanes);
    op.a = scale(op.a, lanes);
    op.b = scale(op.b, lanes);
    op.c = scale(op.c, lanes);
  }
  b->vectors = program.vectors;
  for (auto& v : b->vectors) {
    for (SlotRef& s : v) s = scale(s, lanes);
  }
  b->functions = program.functions;
  for (FunctionCode& f : b->functions) {
    f.frame_bytes *= lanes;
    for (SlotRef* s : {&f.return_pc, &f.return_frame, &f.return_local, &f.return_site}) {
      *s = scale(*s, lanes);
    }
  }
  size_t bytes = (size_t{program.constant_bytes} * lanes + 63) / 64 * 64 + 64;
  b->constants = {static_cast<char*>(std::aligned_alloc(64, bytes)),
                  [](char* p) { std::free(p); }};
  for (const ConstantSlot& c : program.constants) {
    char* at = b->constants.get() + size_t{c.offset} * lanes;
    for (uint32_t lane = 0; lane < lanes; ++lane) std::memcpy(at + lane * c.bytes, &c.bits, c.bytes);
  }
  return b;
}

}  // namespace softgpu::simt

namespace softgpu {

const simt::BoundProgram& Kernel::bound(uint32_t lanes) const {
  std::lock_guard lock(mutex_);
  auto& b = bound_[std::countr_zero(lanes / 32)];
  if (!b) b = simt::bind_program(program, lanes);
  return *b;
}

const KernelInfo& kernel_info(const Kernel& kernel) { return kernel.info; }

}  // namespace softgpu
