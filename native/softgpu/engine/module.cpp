// Linking: symbols across texts, the memory of globals, and kernels on demand.
// SPDX-License-Identifier: Apache-2.0
#include "module.hpp"

#include <algorithm>
#include <cstring>

#include "decoder.hpp"

namespace softgpu::simt {

using ptx::Linkage;
using ptx::Space;

Builtin builtin_named(std::string_view name) {
  if (name == "vprintf") return Builtin::vprintf;
  if (name == "malloc") return Builtin::malloc;
  if (name == "free") return Builtin::free;
  if (name == "__assertfail") return Builtin::assertfail;
  if (name == "cudaGraphSetConditional") return Builtin::set_condition;
  return Builtin::none;
}

LinkedModule::~LinkedModule() {
  for (auto [address, bytes] : allocations_) allocator_.release(address, bytes);
}

bool LinkedModule::load(std::span<const std::string_view> texts, std::string* log) {
  for (std::string_view t : texts) {
    // Callers may free theirs; bodies are parsed later. Images are padded with NULs.
    while (!t.empty() && t.back() == '\0') t.remove_suffix(1);
    texts_.emplace_back(t);
  }
  units_.resize(texts_.size());
  for (size_t k = 0; k < texts_.size(); ++k) {
    if (auto e = ptx::parse_unit(texts_[k], &units_[k])) {
      *log += "ptx input " + std::to_string(k) + ", line " + std::to_string(e.line) +
              "; error: " + e.message + "\n";
      return false;
    }
    for (auto& f : units_[k].functions) {
      f->text = static_cast<int>(k);
      f->number = function_count_++;
    }
  }
  return link(log) && place_globals(log);
}

bool LinkedModule::link(std::string* log) {
  // Strong definitions win over weak and common ones, those over declarations.
  auto rank = [](Linkage l) {
    return l == Linkage::visible ? 3 : l == Linkage::weak ? 2 : l == Linkage::common ? 1 : 0;
  };
  for (ptx::Unit& unit : units_) {
    for (auto& v : unit.variables) {
      if (v->linkage == Linkage::internal || v->space == Space::shared) continue;
      ptx::Variable*& known = shared_variables_[v->name];
      if (!known || rank(v->linkage) > rank(known->linkage)) {
        known = v.get();
      } else if (rank(v->linkage) == 3 && known != v.get()) {
        *log += "line " + std::to_string(v->line) + "; error: multiple definition of '" +
                std::string(v->name) + "'\n";
        return false;
      } else if (v->linkage == Linkage::common && v->bytes > known->bytes) {
        known = v.get();
      }
    }
    for (auto& f : unit.functions) {
      if (f->entry && f->has_body) {
        auto [it, fresh] = entry_names_.emplace(f->name, f.get());
        if (fresh) entries_.push_back(f.get());
      }
      if (!f->has_body || f->linkage == Linkage::internal) continue;
      ptx::Function*& known = shared_functions_[f->name];
      if (!known || rank(f->linkage) > rank(known->linkage)) known = f.get();
    }
  }
  for (ptx::Unit& unit : units_) {
    for (auto& v : unit.variables) {
      if (v->space == Space::shared || v->linkage == Linkage::internal) continue;
      ptx::Variable* definition = shared_variables_[v->name];
      if (definition->linkage == Linkage::external) {
        *log += "line " + std::to_string(v->line) + "; error: unresolved extern variable '" +
                std::string(v->name) + "'\n";
        return false;
      }
      if (definition != v.get()) v->definition = definition;
    }
  }
  return true;
}

const ptx::Variable* LinkedModule::variable(int text, std::string_view name) const {
  const ptx::Unit& unit = units_[static_cast<size_t>(text)];
  auto it = unit.variable_names.find(name);
  if (it == unit.variable_names.end()) return nullptr;
  return it->second->definition ? it->second->definition : it->second;
}

const ptx::Function* LinkedModule::function(int text, std::string_view name) const {
  const ptx::Unit& unit = units_[static_cast<size_t>(text)];
  if (auto alias = unit.aliases.find(name); alias != unit.aliases.end()) name = alias->second;
  auto it = unit.function_names.find(name);
  if (it != unit.function_names.end() && it->second->has_body) {
    if (it->second->linkage != Linkage::weak) return it->second;
  }
  auto shared = shared_functions_.find(name);
  if (shared != shared_functions_.end()) return shared->second;
  return it != unit.function_names.end() && it->second->has_body ? it->second : nullptr;
}

bool LinkedModule::place_globals(std::string* log) {
  for (ptx::Unit& unit : units_) {
    for (auto& v : unit.variables) {
      if (v->space != Space::global && v->space != Space::constant) continue;
      if (v->definition) continue;
      uint64_t bytes = std::max<uint64_t>(v->bytes, 1);
      if (v->space == Space::constant) const_bytes_ += static_cast<uint32_t>(bytes);
      v->address = allocator_.allocate(bytes, std::max<uint64_t>(v->align, 16), v->managed);
      if (v->address == 0) {
        *log += "error: no memory for variable '" + std::string(v->name) + "'\n";
        return false;
      }
      allocations_.push_back({v->address, bytes});
      if (v->reference != ptx::Reference::none) {
        references_.push_back(
            {std::string(v->name), v->address, v->reference == ptx::Reference::surface});
        continue;
      }
      global_names_.emplace(v->name, globals_.size());
      globals_.push_back(
          {std::string(v->name), v->address, v->bytes, v->space == Space::constant, v->managed});
    }
  }
  for (size_t k = 0; k < units_.size(); ++k) {
    for (auto& v : units_[k].variables) {
      if (!v->definition && !initialise(static_cast<int>(k), *v, log)) return false;
    }
  }
  return true;
}

bool LinkedModule::initialise(int text, const ptx::Variable& v, std::string* log) {
  if (v.space != Space::global && v.space != Space::constant) return true;
  for (const ptx::InitItem& item : v.init) {
    uint64_t value = item.value;
    if (!item.symbol.empty()) {
      if (const ptx::Variable* target = variable(text, item.symbol)) {
        value += target->address;
      } else if (const ptx::Function* f = function(text, item.symbol)) {
        value += kFunctionBase + uint64_t{f->number} * kFunctionStride;
        address_taken_.push_back(f);
      } else {
        *log += "line " + std::to_string(v.line) + "; error: unresolved symbol '" +
                std::string(item.symbol) + "' in the initialiser of '" + std::string(v.name) +
                "'\n";
        return false;
      }
      if (item.mask) value = (value & item.mask) >> std::countr_zero(item.mask);
    }
    std::memcpy(reinterpret_cast<void*>(v.address + item.offset), &value,
                std::min<uint32_t>(item.bytes, 8));
  }
  return true;
}

std::vector<std::string> LinkedModule::kernel_names() const {
  std::vector<std::string> names;
  for (const auto* f : entries_) names.emplace_back(f->name);
  return names;
}

const GlobalInfo* LinkedModule::global(std::string_view name) const {
  auto it = global_names_.find(name);
  return it == global_names_.end() ? nullptr : &globals_[it->second];
}

const Kernel* LinkedModule::kernel(std::string_view name, std::string* error) {
  std::lock_guard lock(mutex_);
  error->clear();
  auto it = entry_names_.find(name);
  if (it == entry_names_.end()) return nullptr;
  auto known = kernels_.find(it->second);
  if (known != kernels_.end()) return known->second.get();
  auto kernel = decode(*it->second, error);
  if (!kernel) return nullptr;
  return (kernels_[it->second] = std::move(kernel)).get();
}

std::unique_ptr<Kernel> LinkedModule::decode(const ptx::Function& f, std::string* error) {
  auto kernel = std::make_unique<Kernel>();
  KernelInfo& info = kernel->info;
  info.name = f.name;
  uint64_t end = 0;
  for (const auto& p : f.params) {
    uint64_t align = std::max<uint64_t>(p->align, std::max(1u, p->elem_bits / 8));
    p->address = (end + align - 1) / align * align;
    end = p->address + p->bytes;
    info.params.push_back({static_cast<uint32_t>(p->address), static_cast<uint32_t>(p->bytes)});
  }
  info.param_bytes = static_cast<uint32_t>(end);
  Decoder decoder(*this, &kernel->program);
  if (!decoder.decode(f)) {
    *error = "kernel " + info.name + ": " + decoder.error();
    return nullptr;
  }
  for (const ptx::Variable* v : decoder.references()) {
    info.references.push_back(
        {std::string(v->name), v->address, v->reference == ptx::Reference::surface});
  }
  info.static_shared_bytes = kernel->program.shared_bytes;
  info.local_bytes = kernel->program.local_bytes;
  info.const_bytes = const_bytes_;
  // Texts name values, not registers: say what a compiler would do with a good part of them.
  info.registers = std::clamp<uint32_t>(decoder.registers() / 3 + 8, 8, 255);
  if (f.max_registers) info.registers = std::min(info.registers, f.max_registers);
  if (f.max_threads) info.max_threads = std::min<uint32_t>(f.max_threads, 1024);
  int sm = units_[static_cast<size_t>(f.text)].target_sm;
  if (sm) info.target_sm = sm;
  return kernel;
}

}  // namespace softgpu::simt

namespace softgpu {

std::unique_ptr<Module> load_module(std::span<const std::string_view> texts,
                                    GlobalAllocator allocator, std::string* log) {
  auto module = std::make_unique<simt::LinkedModule>(std::move(allocator));
  if (!module->load(texts, log)) return nullptr;
  return module;
}

}  // namespace softgpu
