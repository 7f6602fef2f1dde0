// Binds decoded programs to a number of lanes.
// SPDX-License-Identifier: Apache-2.0
#include "program.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

namespace softgpu::simt {
namespace {

SlotRef scale(SlotRef s, uint32_t lanes) { return s == kNoSlot ? s : (s >> 2) * lanes | (s & 3); }

}  // namespace

void share_patterns(Program* program) {
  struct Known {
    SlotRef address;
    uint32_t bytes;  ///< of an access, on which consecutive depends
  };
  Known known[kMemos];
  auto forget_all = [&] { std::fill(std::begin(known), std::end(known), Known{kNoSlot, 0}); };
  auto forget = [&](SlotRef s) {
    for (Known& k : known) {
      if (k.address == s) k = {kNoSlot, 0};
    }
  };
  forget_all();
  unsigned next = 1;  // memo 0 is for accesses that share nothing
  for (Op& op : program->ops) {
    if (op.kind == OpKind::alu || op.kind == OpKind::alu_mode) {
      forget(op.d);
      continue;
    }
    bool load = op.kind == OpKind::load;
    if (!load && op.kind != OpKind::store) {
      forget_all();  // fragments may change here
      continue;
    }
    if (op.predicate == kNoSlot && op.space != MemorySpace::local) {
      uint32_t bytes = op.access_bytes;
      for (unsigned k = 1; k < kMemos && !op.memo; ++k) {
        if (known[k].address == op.a && known[k].bytes == bytes) {
          op.memo = static_cast<uint8_t>(k);
          op.memo_known = true;
        }
      }
      if (!op.memo) {
        op.memo = static_cast<uint8_t>(next);
        known[next] = {op.a, bytes};
        next = next % (kMemos - 1) + 1;
      }
    }
    if (load) {
      for (SlotRef s : program->vectors[op.target]) forget(s);
    }
  }
}

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
  b->constants = {static_cast<char*>(std::aligned_alloc(64, bytes)), [](char* p) { std::free(p); }};
  for (const ConstantSlot& c : program.constants) {
    char* at = b->constants.get() + size_t{c.offset} * lanes;
    for (uint32_t lane = 0; lane < lanes; ++lane)
      std::memcpy(at + lane * c.bytes, &c.bits, c.bytes);
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
