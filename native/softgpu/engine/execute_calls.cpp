// Calls, returns and the functions that the engine provides.
// SPDX-License-Identifier: Apache-2.0
//
// Each call depth has a frame of its own in the register file and in every lane's local memory.
// Arguments are .param variables, which live in local memory: a call copies them from the caller's
// frame to the callee's, a return copies results back. Where to return to is kept per lane, since
// lanes may have come from different places.
#include <algorithm>
#include <cstring>

#include "conditions.hpp"
#include "device_heap.hpp"
#include "executor.hpp"
#include "printf.hpp"

namespace softgpu::simt {
namespace {

constexpr size_t kMaxRegisterBytes = size_t{256} << 20;

}  // namespace

char* Executor::local_at(int lane, uint32_t offset, uint32_t bytes) {
  const Window& w = view_.local;
  if (bytes > w.size || offset > w.size - bytes) return nullptr;
  return w.host + w.lane_stride * static_cast<uint64_t>(lane) + offset;
}

bool Executor::reserve_registers(size_t bytes) {
  if (bytes <= group_->regs_bytes) return true;
  if (bytes > kMaxRegisterBytes) return false;
  size_t want = std::min(kMaxRegisterBytes, std::max(bytes, group_->regs_bytes * 2));
  AlignedBytes bigger = aligned_bytes(want);
  if (!bigger) return false;
  std::memcpy(bigger.get(), group_->regs.get(), group_->regs_bytes);
  group_->regs = std::move(bigger);
  group_->regs_bytes = want;
  base_[kRegisters] = group_->regs.get() + now_.frame.regs;
  return true;
}

/// Sends `lanes` into a function; the caller has seen to the lanes that stay.
bool Executor::enter_function(const CallSite& site, uint32_t site_index, int function, uint32_t pc,
                              const LaneBits& lanes) {
  const FunctionCode& caller = program_->functions[static_cast<size_t>(site.caller)];
  const FunctionCode& code = program_->functions[static_cast<size_t>(function)];
  Frame from = now_.frame;
  Frame to{from.regs + caller.frame_bytes, from.local + caller.local_bytes};
  budget_ -= 8;
  const Op& op = ops_[pc];
  if (uint64_t{to.local} + code.local_bytes > view_.local.size ||
      !reserve_registers(size_t{to.regs} + code.frame_bytes + 64)) {
    return fault(Fault::illegal_address, op, lanes.first(), "the stack overflows in " + code.name);
  }
  for (size_t k = 0; k < site.args.size() && k < code.params.size(); ++k) {
    uint32_t bytes = std::min(site.arg_bytes[k], code.param_bytes[k]);
    each_lane(lanes, [&](int lane) {
      std::memcpy(local_at(lane, to.local + code.params[k], bytes),
                  local_at(lane, from.local + site.args[k], bytes), bytes);
    });
  }
  now_.frame = to;
  base_[kRegisters] = group_->regs.get() + to.regs;
  each_lane(lanes, [&](int lane) {
    lanes_of<uint32_t>(code.return_pc)[lane] = pc + 1;
    lanes_of<uint32_t>(code.return_frame)[lane] = from.regs;
    lanes_of<uint32_t>(code.return_local)[lane] = from.local;
    lanes_of<uint32_t>(code.return_site)[lane] = site_index;
  });
  now_.pc = code.entry;
  set_lanes(lanes);
  return true;
}

bool Executor::call(const Op& op, uint32_t pc, const LaneSet& set) {
  const CallSite& site = launch_->kernel->program.calls[op.target];
  if (site.builtin != Builtin::none) {
    if (!builtin(site, set)) return false;
    now_.pc = pc + 1;
    return true;
  }
  LaneBits lanes = set.bits;
  LaneBits stay = now_.lanes.without(lanes);
  if (stay.any()) {
    Fragment rest = now_;
    rest.lanes = stay;
    rest.pc = pc + 1;
    group_->fragments.push_back(rest);
  }
  return enter_function(site, op.target, site.function, pc, lanes);
}

bool Executor::call_indirect(const Op& op, uint32_t pc, const LaneSet& set) {
  const CallSite& site = launch_->kernel->program.calls[op.target];
  LaneBits lanes = set.bits;
  const uint64_t* target = lanes_of<uint64_t>(op.a);
  Fragment before = now_;
  LaneBits stay = before.lanes.without(lanes);
  std::vector<std::pair<int, LaneBits>> targets;
  while (lanes.any()) {
    int lane = lanes.first();
    uint64_t address = target[lane];
    LaneBits same;
    each_lane(lanes, [&](int l) {
      if (target[l] == address) same.set(l);
    });
    lanes = lanes.without(same);
    uint64_t number = (address - kFunctionBase) / kFunctionStride;
    int found = -1;
    for (size_t f = 1; f < program_->functions.size(); ++f) {
      bool fits = address % kFunctionStride == 0 && program_->functions[f].number == number &&
                  program_->functions[f].params.size() == site.args.size() &&
                  program_->functions[f].results.size() >= site.results.size();
      if (fits) found = static_cast<int>(f);
    }
    if (found < 0) {
      return fault(Fault::invalid_program_counter, op, lane, "a call of what is no function");
    }
    targets.push_back({found, same});
  }
  for (size_t k = 0; k < targets.size(); ++k) {
    now_ = before;
    base_[kRegisters] = group_->regs.get() + now_.frame.regs;
    if (!enter_function(site, op.target, targets[k].first, pc, targets[k].second)) return false;
    if (targets.size() > 1 || stay.any()) group_->fragments.push_back(now_);
  }
  if (stay.any()) {
    Fragment rest = before;
    rest.lanes = stay;
    rest.pc = pc + 1;
    group_->fragments.push_back(rest);
  }
  if (targets.size() > 1 || stay.any()) pick();
  return true;
}

bool Executor::copy_results(const FunctionCode& code, const CallSite& site, Frame from, Frame to,
                            const LaneBits& lanes) {
  for (size_t k = 0; k < site.results.size() && k < code.results.size(); ++k) {
    uint32_t bytes = std::min(site.result_bytes[k], code.result_bytes[k]);
    each_lane(lanes, [&](int lane) {
      std::memcpy(local_at(lane, to.local + site.results[k], bytes),
                  local_at(lane, from.local + code.results[k], bytes), bytes);
    });
  }
  return true;
}

void Executor::ret(const Op& op, const LaneSet& set) {
  const FunctionCode& code = program_->functions[op.target];
  LaneBits lanes = set.bits;
  Fragment here = now_;
  LaneBits stay = now_.lanes.without(lanes);
  if (stay.any()) {
    Fragment rest = here;  // its pc is already behind this return
    rest.lanes = stay;
    group_->fragments.push_back(rest);
  }
  budget_ -= 4;
  const uint32_t* pcs = lanes_of<uint32_t>(code.return_pc);
  const uint32_t* frames = lanes_of<uint32_t>(code.return_frame);
  const uint32_t* locals = lanes_of<uint32_t>(code.return_local);
  const uint32_t* sites = lanes_of<uint32_t>(code.return_site);
  Fragment last;
  bool split = stay.any();
  while (lanes.any()) {
    int lane = lanes.first();
    LaneBits same;
    each_lane(lanes, [&](int l) {
      if (pcs[l] == pcs[lane] && frames[l] == frames[lane] && locals[l] == locals[lane])
        same.set(l);
    });
    lanes = lanes.without(same);
    Fragment f = here;
    f.pc = pcs[lane];
    f.frame = {frames[lane], locals[lane]};
    f.lanes = same;
    copy_results(code, launch_->kernel->program.calls[sites[lane]], here.frame, f.frame, same);
    if (lanes.any() || split) {
      split = true;
      group_->fragments.push_back(f);
    }
    last = f;
  }
  if (!split && group_->fragments.empty()) {
    enter(last);
    return;
  }
  if (!split) group_->fragments.push_back(last);
  pick();
}

/// A NUL-terminated text from the kernel's memory.
bool Executor::read_text(uint64_t address, std::string* out, size_t width) {
  constexpr size_t kLongest = 1 << 16;
  Window w;
  for (size_t n = 0; n < kLongest; ++n, address += width) {
    bool in = address - w.base < w.size && w.host;
    if (!in && !find_window(&view_, MemorySpace::generic, 0, address, 1, &w)) return false;
    char c = w.host[address - w.base];
    if (c == 0) return true;
    out->push_back(c);
  }
  return true;
}

bool Executor::builtin(const CallSite& site, const LaneSet& set) {
  auto argument = [&](int lane, size_t k) {
    uint64_t v = 0;
    uint32_t bytes = std::min<uint32_t>(site.arg_bytes[k], 8);
    std::memcpy(&v, local_at(lane, now_.frame.local + site.args[k], bytes), bytes);
    return v;
  };
  auto result = [&](int lane, uint64_t v) {
    if (site.results.empty()) return;
    uint32_t bytes = std::min<uint32_t>(site.result_bytes[0], 8);
    std::memcpy(local_at(lane, now_.frame.local + site.results[0], bytes), &v, bytes);
  };
  const Op& op = ops_[now_.pc];
  bool ok = true;
  each_lane(set.bits, [&](int lane) {
    if (!ok) return;
    switch (site.builtin) {
      case Builtin::vprintf: {
        std::string format, text;
        uint64_t where = argument(lane, 1);
        auto read = [&](uint64_t offset, void* to, uint32_t bytes) {
          Window w;
          if (!find_window(&view_, MemorySpace::generic, lane, where + offset, bytes, &w))
            return false;
          std::memcpy(to, w.host + (where + offset - w.base), bytes);
          return true;
        };
        auto string = [&](uint64_t address, std::string* out) { return read_text(address, out); };
        int arguments = 0;
        if (!read_text(argument(lane, 0), &format) ||
            !format_device_text(format, read, string, &text, &arguments)) {
          ok = fault(Fault::illegal_address, op, lane, "printf reads an illegal address");
          return;
        }
        launch_->printf->write(text);
        result(lane, static_cast<uint64_t>(arguments));
        break;
      }
      case Builtin::malloc:
        result(lane, launch_->heap->allocate(argument(lane, 0)));
        break;
      case Builtin::free:
        if (!launch_->heap->release(argument(lane, 0))) {
          ok = fault(Fault::illegal_address, op, lane, "free of what malloc did not give");
        }
        break;
      case Builtin::assertfail: {
        std::string message, file, function;
        if (!read_text(argument(lane, 0), &message)) message = "?";
        if (!read_text(argument(lane, 1), &file)) file = "?";
        if (!read_text(argument(lane, 3), &function)) function = "?";
        uint32_t line = static_cast<uint32_t>(argument(lane, 2));
        const auto& d = launch_->launch.block;
        uint32_t t = static_cast<uint32_t>(group_ - block_->groups.data()) * kMaxLanes +
                     static_cast<uint32_t>(lane);
        std::string text =
            file + ":" + std::to_string(line) + ": " + function + ": block: [" +
            std::to_string(block_->ctaid[0]) + "," + std::to_string(block_->ctaid[1]) + "," +
            std::to_string(block_->ctaid[2]) + "], thread: [" + std::to_string(t % d[0]) + "," +
            std::to_string(t / d[0] % d[1]) + "," + std::to_string(t / d[0] / d[1]) +
            "] Assertion `" + message + "` failed.";
        launch_->printf->write(text + "\n");
        launch_->fail(Fault::assertion, text);
        ok = false;
        break;
      }
      case Builtin::set_condition:
        if (!Conditions::get().set(argument(lane, 0), static_cast<uint32_t>(argument(lane, 1)))) {
          ok = fault(Fault::illegal_address, op, lane, "a condition that no graph has is set");
        }
        break;
      case Builtin::none:
        break;
    }
  });
  return ok;
}

}  // namespace softgpu::simt
