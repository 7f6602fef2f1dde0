// A linked module: the texts, the symbols across them, and the kernels decoded so far.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine.hpp"
#include "program.hpp"
#include "syntax.hpp"

namespace softgpu::simt {

/// Functions that the engine itself provides to kernels.
Builtin builtin_named(std::string_view name);

class LinkedModule final : public Module {
 public:
  explicit LinkedModule(GlobalAllocator allocator) : allocator_(std::move(allocator)) {}
  ~LinkedModule() override;

  bool load(std::span<const std::string_view> texts, std::string* log);

  std::vector<std::string> kernel_names() const override;
  const Kernel* kernel(std::string_view name, std::string* error) override;
  const GlobalInfo* global(std::string_view name) const override;
  std::vector<GlobalInfo> globals() const override { return globals_; }
  const std::vector<ReferenceInfo>& references() const override { return references_; }

  // For the decoder: names as seen from one of the texts.
  const ptx::Variable* variable(int text, std::string_view name) const;
  const ptx::Function* function(int text, std::string_view name) const;
  /// Functions whose address is taken by an initialiser; indirect calls may reach them.
  const std::vector<const ptx::Function*>& address_taken() const { return address_taken_; }
  uint32_t function_count() const { return function_count_; }

 private:
  bool link(std::string* log);
  bool place_globals(std::string* log);
  bool initialise(int text, const ptx::Variable& v, std::string* log);
  std::unique_ptr<Kernel> decode(const ptx::Function& f, std::string* error);

  GlobalAllocator allocator_;
  std::vector<std::string> texts_;
  std::vector<ptx::Unit> units_;
  std::unordered_map<std::string_view, ptx::Variable*> shared_variables_;  ///< across texts
  std::unordered_map<std::string_view, ptx::Function*> shared_functions_;
  std::vector<GlobalInfo> globals_;
  std::vector<ReferenceInfo> references_;
  std::unordered_map<std::string_view, size_t> global_names_;
  std::vector<const ptx::Function*> entries_;
  std::unordered_map<std::string_view, const ptx::Function*> entry_names_;
  std::vector<const ptx::Function*> address_taken_;
  std::vector<std::pair<uint64_t, uint64_t>> allocations_;  ///< address, bytes
  uint32_t function_count_ = 0;
  uint32_t const_bytes_ = 0;
  mutable std::mutex mutex_;
  std::map<const ptx::Function*, std::unique_ptr<Kernel>> kernels_;
};

}  // namespace softgpu::simt
