// Turns parsed functions into micro-operations.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <initializer_list>
#include <map>
#include <set>
#include <string>
#include <unordered_map>

#include "module.hpp"
#include "program.hpp"
#include "syntax.hpp"

namespace softgpu::simt {

/// Decodes one entry point with all functions that it may call. Every function returns false after
/// calling fail(); an instruction that nobody knows is an error, never skipped.
class Decoder {
 public:
  Decoder(const LinkedModule& module, Program* program) : module_(module), program_(*program) {}

  bool decode(const ptx::Function& entry);
  const std::string& error() const { return error_; }
  uint32_t registers() const { return registers_; }
  /// The texture and surface references that are named.
  const std::set<const ptx::Variable*>& references() const { return references_; }

 private:
  using Operand = ptx::Operand;
  using Kind = ptx::Operand::Kind;
  using Instruction = ptx::Instruction;

  /// The function being decoded.
  struct State {
    const ptx::Function* function = nullptr;
    int index = 0;
    ptx::Body body;
    std::vector<SlotRef> slots;  ///< of registers, kNoSlot until used
    std::vector<uint32_t> label_pc;
    std::vector<std::pair<uint32_t, int>> fixups;        ///< op, label
    std::vector<std::pair<uint32_t, int>> table_fixups;  ///< jump table, its first label
    std::vector<std::vector<int>> tables;
    uint32_t frame_bytes = 0;
    std::unordered_map<SlotRef, uint32_t> sizes;  ///< bytes of each register's slot
    uint32_t local_bytes = 0;
    SlotRef carry = kNoSlot;
    std::map<unsigned, std::vector<SlotRef>> temps;  ///< by size; free again after each instruction
    std::map<unsigned, size_t> temps_used;
  };

  // decoder.cpp
  bool function(const ptx::Function& f);
  bool layout_frame();
  bool instruction(const Instruction& i);
  bool fail(std::string reason);
  bool unknown(std::string_view why = {});
  int function_index(const ptx::Function& f);
  void call_depths();

  // Operands. `bytes` is the size of the slot that the handler reads.
  SlotRef constant(uint64_t bits, unsigned bytes);
  SlotRef special(Special s) {
    program_.specials_used |= uint64_t{1} << static_cast<unsigned>(s);
    return slot(kSpecials, static_cast<uint32_t>(s) * 4);
  }
  SlotRef new_slot(unsigned bytes);
  SlotRef temp(unsigned bytes);
  SlotRef reg(int number);
  unsigned reg_bytes(int number) const;
  bool source(const Operand& o, unsigned bytes, SlotRef* out, char type = 'b');
  bool special_source(const Operand& o, unsigned bytes, SlotRef* out);
  bool symbol_source(const Operand& o, unsigned bytes, SlotRef* out);
  bool immediate(const Operand& o, unsigned bytes, char type, uint64_t* bits);
  bool destination(const Operand& o, unsigned bytes, SlotRef* out);
  bool predicate_source(const Operand& o, SlotRef* out);
  bool frame_offset(const ptx::Variable& v, int64_t offset, unsigned bytes, SlotRef* out);
  uint32_t shared_offset(const ptx::Variable& v);

  // Emission.
  Op& emit(OpKind kind);
  bool alu(std::string_view key, SlotRef d, std::initializer_list<SlotRef> sources,
           uint64_t imm = 0, uint8_t mode = 0);
  bool move(unsigned bytes, SlotRef d, SlotRef a);

  // decode_arithmetic.cpp
  bool arithmetic();
  bool simple(const std::string& key, std::string_view type, uint8_t mode, bool saturate, bool relu,
              bool flush);
  bool carry();
  bool setp();
  bool set();
  bool compare(std::string_view relation, std::string_view type, bool flush, const Operand& a,
               const Operand& b, SlotRef d);
  bool combine(std::string_view boolean, SlotRef d, SlotRef value, SlotRef other);
  bool selp();
  bool slct();
  bool bfi();
  bool lop3();
  bool prmt();
  bool mov();
  bool unpack(const Operand& to, const Operand& from, unsigned bytes);
  bool pack(const Operand& to, const Operand& from, unsigned bytes);
  bool packed_relation(std::string_view relation, std::string_view type, SlotRef a, SlotRef b,
                       SlotRef lo, SlotRef hi, bool flush);

  // decode_convert.cpp
  bool cvt();
  bool cvt_integer(std::string_view to, std::string_view from, bool saturate);
  bool narrow(const Operand& o, std::string_view type, SlotRef* out);
  bool widen(SlotRef from, std::string_view type, const Operand& to);
  bool cvta();
  bool isspacep();

  // decode_memory.cpp
  struct Access {
    MemorySpace space = MemorySpace::generic;
    bool param = false;
    bool polls = false;
    bool acquire = false, release = false;
    unsigned count = 1;
    std::string_view type;
  };
  bool access_words(Access* a);
  bool address(const Operand& o, Access* a, SlotRef* base, uint32_t* bytes, int64_t* offset);
  bool load();
  bool store();
  bool atomic(bool with_result);
  bool atomic_operands(Op& op, const Access& a, std::string_view operation, bool with_result);
  bool async_copy();
  bool mbarrier();
  bool fence();

  // decode_textures.cpp
  struct TextureUse {
    uint8_t dimensions = 0;
    bool layered = false;
    uint8_t count = 0;
    uint8_t bytes = 0;  ///< of a value's register
    uint64_t extra = 0;
    std::array<SlotRef, 8> slots{kNoSlot, kNoSlot, kNoSlot, kNoSlot,
                                 kNoSlot, kNoSlot, kNoSlot, kNoSlot};  ///< values, places
  };
  bool texture_name(const Operand& o, SlotRef* out);
  bool texture_places(const Operand& o, bool floats, TextureUse* use);
  bool texture_values(const Operand& o, unsigned bytes, bool written, TextureUse* use);
  void emit_texture(OpKind kind, const TextureUse& use, SlotRef name);
  bool texture();
  bool texture_query();
  bool surface();

  // decode_control.cpp
  bool branch();
  bool branch_table();
  bool call();
  bool call_arguments(const Operand* results, const Operand* args, CallSite* site);
  bool barrier();
  bool shuffle();
  bool vote();
  bool match();
  bool redux();
  bool elect();
  bool stack();
  bool map_shared();

  const std::vector<std::string_view>& words() const { return now_->words; }
  const std::vector<Operand>& operands() const { return now_->operands; }
  bool has(std::string_view word) const;
  bool count_is(size_t least, size_t most = 0);

  const LinkedModule& module_;
  Program& program_;
  State state_;
  const Instruction* now_ = nullptr;
  std::string error_;
  std::map<std::pair<uint64_t, unsigned>, SlotRef> constants_;
  std::map<const ptx::Function*, int> indices_;
  std::vector<const ptx::Function*> queue_;
  std::map<const ptx::Variable*, uint32_t> shared_;
  std::vector<std::vector<int>> callees_;  ///< by function; for the depth of local memory
  std::set<const ptx::Variable*> references_;
  bool indirect_ = false;
  bool dynamic_shared_ = false;
  uint32_t registers_ = 0;
};

/// 's', 'u', 'b' or 'f' of a type such as "s32"; 'p' for predicates.
char type_letter(std::string_view type);

}  // namespace softgpu::simt
