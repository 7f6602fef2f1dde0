// The index pass over a PTX text: variables, functions and where their bodies are.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <charconv>

#include "parser.hpp"

namespace softgpu::ptx {

unsigned type_bits(std::string_view t) {
  static const std::unordered_map<std::string_view, unsigned> bits = {
      {"pred", 1},    {"b8", 8},      {"u8", 8},          {"s8", 8},      {"b16", 16},
      {"u16", 16},    {"s16", 16},    {"f16", 16},        {"bf16", 16},   {"e4m3x2", 16},
      {"e5m2x2", 16}, {"b32", 32},    {"u32", 32},        {"s32", 32},    {"f32", 32},
      {"f16x2", 32},  {"bf16x2", 32}, {"u16x2", 32},      {"s16x2", 32},  {"tf32", 32},
      {"b64", 64},    {"u64", 64},    {"s64", 64},        {"f64", 64},    {"f32x2", 64},
      {"b128", 128},  {"texref", 64}, {"samplerref", 64}, {"surfref", 64}};
  auto it = bits.find(t);
  return it == bits.end() ? 0 : it->second;
}

bool space_of(std::string_view w, Space* space) {
  if (w == "reg")
    *space = Space::reg;
  else if (w == "global")
    *space = Space::global;
  else if (w == "const")
    *space = Space::constant;
  else if (w == "shared" || w == "shared::cta" || w == "shared::cluster")
    *space = Space::shared;
  else if (w == "local")
    *space = Space::local;
  else if (w == "param" || w == "param::entry" || w == "param::func")
    *space = Space::param;
  else
    return false;
  return true;
}

bool ParserBase::fail(std::string message) {
  if (!error_) {
    error_.message = std::move(message);
    error_.line = lex_.peek().line;
  }
  return false;
}

bool ParserBase::expect(char c) {
  if (lex_.accept(c)) return true;
  return fail(std::string("expected '") + c + "' before '" + std::string(lex_.peek().text) + "'");
}

bool ParserBase::variable_shape(Variable* v) {
  unsigned lanes = 1;
  while (lex_.peek().kind == TokenKind::dotted) {
    std::string_view w = lex_.take().text;
    if (w == "align") {
      if (lex_.peek().kind != TokenKind::integer) return fail("expected a number after .align");
      v->align = static_cast<uint32_t>(lex_.take().bits);
      if (!std::has_single_bit(v->align)) return fail("an alignment must be a power of two");
    } else if (w == "v2" || w == "v4" || w == "v8") {
      lanes = static_cast<unsigned>(w[1] - '0');
    } else if (w == "ptr") {
      // A promise about what the pointer points to; its .align belongs to the pointee.
      Space ignored;
      while (lex_.peek().kind == TokenKind::dotted) {
        if (lex_.peek().text == "align") {
          lex_.take();
          lex_.take();
        } else if (space_of(lex_.peek().text, &ignored)) {
          lex_.take();
        } else {
          break;
        }
      }
    } else if (w == "attribute") {
      if (!expect('(')) return false;
      while (!lex_.peek().is(')') && lex_.peek().kind != TokenKind::end) {
        v->managed = v->managed || lex_.peek().is_dotted("managed");
        lex_.take();
      }
      if (!expect(')')) return false;
    } else if (unsigned bits = type_bits(w)) {
      v->elem_bits = bits;
      if (w == "texref") v->reference = Reference::texture;
      if (w == "surfref") v->reference = Reference::surface;
    } else {
      return fail("unknown word ." + std::string(w) + " in a declaration");
    }
  }
  if (v->elem_bits == 0) return fail("a declaration without a type");
  v->bytes = std::max(1u, v->elem_bits / 8) * lanes;
  v->align = std::max<uint32_t>(v->align, lanes * std::max(1u, v->elem_bits / 8));
  return true;
}

bool ParserBase::variable_name(Variable* v) {
  if (lex_.peek().kind != TokenKind::word) return fail("expected a name");
  v->line = lex_.peek().line;
  v->name = lex_.take().text;
  while (lex_.accept('[')) {
    uint64_t count = 0;
    if (lex_.peek().kind == TokenKind::integer) count = lex_.take().bits;
    if (!expect(']')) return false;
    if (count && v->bytes > (uint64_t{1} << 40) / count) return fail("a variable is too large");
    v->bytes *= count;
  }
  if (lex_.accept('=')) {
    uint64_t offset = 0;
    if (!initialiser(v, &offset, 0)) return false;
    v->bytes = std::max(v->bytes, offset);
  }
  return true;
}

bool ParserBase::initialiser(Variable* v, uint64_t* offset, unsigned depth) {
  if (depth > 8) return fail("initialisers are nested too deeply");
  if (!lex_.accept('{')) return init_item(v, offset);
  if (lex_.accept('}')) return true;
  do {
    if (!initialiser(v, offset, depth + 1)) return false;
  } while (lex_.accept(','));
  return expect('}');
}

bool ParserBase::init_item(Variable* v, uint64_t* offset) {
  InitItem item;
  item.offset = *offset;
  item.bytes = std::max(1u, v->elem_bits / 8);
  *offset += item.bytes;
  bool minus = lex_.accept('-');
  Token t = lex_.take();
  if (t.kind == TokenKind::integer &&
      lex_.peek().is('(')) {  // 0xFF00(symbol): a part of its address
    item.mask = t.bits;
    lex_.take();
    t = lex_.take();
    if (t.is_word("generic") && lex_.accept('(')) {
      t = lex_.take();
      if (!expect(')')) return false;
    }
    item.symbol = t.text;
    if (lex_.accept('+')) item.value = lex_.take().bits;
    if (!expect(')')) return false;
  } else if (t.kind == TokenKind::integer) {
    item.value = minus ? 0 - t.bits : t.bits;
  } else if (t.kind == TokenKind::f32 || t.kind == TokenKind::f64) {
    double d = t.kind == TokenKind::f32 ? std::bit_cast<float>(static_cast<uint32_t>(t.bits))
                                        : std::bit_cast<double>(t.bits);
    if (minus) d = -d;
    if (t.kind == TokenKind::f32 && v->elem_bits == 32) {
      item.value = t.bits ^ (minus ? 0x80000000u : 0);  // a NaN keeps its payload
    } else if (v->elem_bits == 32) {
      item.value = std::bit_cast<uint32_t>(static_cast<float>(d));
    } else {
      item.value = std::bit_cast<uint64_t>(d);
    }
  } else if (t.kind == TokenKind::word) {
    if (t.text == "generic" && lex_.accept('(')) {
      t = lex_.take();
      if (!expect(')')) return false;
    }
    item.symbol = t.text;
    if (lex_.accept('+')) {
      item.value = lex_.take().bits;
    } else if (lex_.accept('-')) {
      item.value = 0 - lex_.take().bits;
    }
  } else {
    return fail("unexpected '" + std::string(t.text) + "' in an initialiser");
  }
  v->init.push_back(item);
  return true;
}

bool ParserBase::parameter_list(std::vector<std::unique_ptr<Variable>>* out) {
  if (!expect('(')) return false;
  if (lex_.accept(')')) return true;
  do {
    Token t = lex_.take();
    auto v = std::make_unique<Variable>();
    if (t.is_dotted("reg")) return fail("functions with parameters in .reg are not supported");
    if (!t.is_dotted("param")) return fail("expected .param");
    v->space = Space::param;
    if (!variable_shape(v.get())) return false;
    if (lex_.peek().is_word("_")) {
      v->name = lex_.take().text;
      if (lex_.accept('[')) {
        v->bytes *= lex_.peek().kind == TokenKind::integer ? lex_.take().bits : 0;
        if (!expect(']')) return false;
      }
    } else if (!variable_name(v.get())) {
      return false;
    }
    out->push_back(std::move(v));
  } while (lex_.accept(','));
  return expect(')');
}

namespace {

/// Reads the module level.
class Indexer : ParserBase {
 public:
  Indexer(std::string_view text, Unit* unit) : ParserBase(text, 1), unit_(unit) {}
  ParseError run() {
    while (!failed() && lex_.peek().kind != TokenKind::end) statement();
    return error_;
  }

 private:
  bool statement();
  bool function(bool entry, Linkage linkage);
  bool attributes(Function* f);
  bool target();

  Unit* unit_;
};

bool Indexer::target() {
  do {
    if (lex_.peek().kind != TokenKind::word) return fail("expected a target");
    std::string_view w = lex_.take().text;
    if (w.starts_with("sm_")) {
      std::from_chars(w.data() + 3, w.data() + w.size(), unit_->target_sm);
    }
  } while (lex_.accept(','));
  return true;
}

bool Indexer::statement() {
  Linkage linkage = Linkage::internal;
  if (lex_.accept(';')) return true;
  if (lex_.peek().is('@')) {  // @@DWARF lines of old producers
    lex_.skip_line();
    return true;
  }
  while (true) {
    Token t = lex_.take();
    if (t.kind != TokenKind::dotted) {
      return fail("unexpected '" + std::string(t.text) + "' outside of functions");
    }
    std::string_view w = t.text;
    Space space;
    if (w == "visible")
      linkage = Linkage::visible;
    else if (w == "extern")
      linkage = Linkage::external;
    else if (w == "weak")
      linkage = Linkage::weak;
    else if (w == "common")
      linkage = Linkage::common;
    else if (w == "version") {
      lex_.take();  // ignored on purpose: what counts is whether the instructions are known
      return true;
    } else if (w == "target") {
      return target();
    } else if (w == "address_size") {
      if (lex_.take().bits != 64) return fail("only 64-bit addresses are supported");
      return true;
    } else if (w == "file" || w == "loc") {
      while (lex_.peek().kind != TokenKind::end && lex_.peek().line == t.line) lex_.take();
      return true;
    } else if (w == "section") {
      if (lex_.peek().kind != TokenKind::punctuation) lex_.take();
      std::string_view inside;
      uint32_t line;
      return lex_.skip_braces(&inside, &line) || fail("a section without its braces");
    } else if (w == "pragma") {
      lex_.take();
      return expect(';');
    } else if (w == "alias") {
      std::string_view alias = lex_.take().text;
      if (!expect(',')) return false;
      unit_->aliases[alias] = lex_.take().text;
      return expect(';');
    } else if (w == "func" || w == "entry") {
      return function(w == "entry", linkage);
    } else if (space_of(w, &space) && space != Space::reg && space != Space::param) {
      return variables(space, linkage, [&](Variable v) {
        auto owned = std::make_unique<Variable>(std::move(v));
        Variable*& known = unit_->variable_names[owned->name];
        // A definition after its .extern declaration takes its place.
        if (!known || known->linkage == Linkage::external) known = owned.get();
        unit_->variables.push_back(std::move(owned));
      });
    } else if (w == "tex") {
      return fail("'.tex' went with PTX 1.5; declare a .global .texref");
    } else {
      return fail("unknown directive ." + std::string(w));
    }
  }
}

bool Indexer::attributes(Function* f) {
  while (lex_.peek().kind == TokenKind::dotted) {
    std::string_view w = lex_.take().text;
    if (w == "pragma") {
      lex_.take();
      lex_.accept(';');
      continue;
    }
    if (w == "attribute" || w == "unified") {
      if (lex_.accept('(')) {
        while (!lex_.peek().is(')') && lex_.peek().kind != TokenKind::end) lex_.take();
        if (!expect(')')) return false;
      }
      continue;
    }
    if (w == "file" || w == "loc") {
      lex_.skip_line();
      continue;
    }
    uint64_t product = 1;
    bool any = false;
    while (lex_.peek().kind == TokenKind::integer) {
      product *= lex_.take().bits;
      any = true;
      if (!lex_.accept(',')) break;
    }
    if ((w == "maxntid" || w == "reqntid") && any) f->max_threads = static_cast<uint32_t>(product);
    if (w == "maxnreg" && any) f->max_registers = static_cast<uint32_t>(product);
  }
  return true;
}

bool Indexer::function(bool entry, Linkage linkage) {
  auto f = std::make_unique<Function>();
  f->entry = entry;
  f->linkage = linkage;
  while (lex_.peek().is_dotted("attribute") || lex_.peek().is_dotted("noreturn")) {
    if (!attributes(f.get())) return false;
  }
  if (lex_.peek().is('(') && !parameter_list(&f->results)) return false;
  if (lex_.peek().kind != TokenKind::word) return fail("expected a function's name");
  f->line = lex_.peek().line;
  f->name = lex_.take().text;
  if (lex_.peek().is('(') && !parameter_list(&f->params)) return false;
  if (!attributes(f.get())) return false;
  if (lex_.skip_braces(&f->body, &f->body_line)) {
    f->has_body = true;
  } else if (!lex_.accept(';')) {
    return fail("function " + std::string(f->name) + " has neither a body nor a ';'");
  }
  Function*& known = unit_->function_names[f->name];
  if (known && known->has_body && f->has_body) {
    return fail("function " + std::string(f->name) + " is defined twice");
  }
  if (!known || f->has_body) known = f.get();
  unit_->functions.push_back(std::move(f));
  return true;
}

}  // namespace

ParseError parse_unit(std::string_view text, Unit* unit) { return Indexer(text, unit).run(); }

}  // namespace softgpu::ptx
