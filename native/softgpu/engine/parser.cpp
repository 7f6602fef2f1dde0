// Parses the body of one function, with PTX's lexical scopes.
// SPDX-License-Identifier: Apache-2.0
#include "parser.hpp"

#include <charconv>

namespace softgpu::ptx {
namespace {

/// Names declared between a pair of braces. Inline assembly redeclares names in inner ones.
struct Scope {
  int parent = -1;
  std::unordered_map<std::string_view, int> registers;
  /// `.reg .b32 %r<100>` declares %r0 to %r99: prefix to (count, bits).
  std::unordered_map<std::string_view, std::pair<uint64_t, uint32_t>> ranges;
  std::unordered_map<std::string_view, Variable*> variables;
  std::unordered_map<std::string_view, int> labels;
};

struct PendingLabel {
  std::string_view name;
  int scope;
  int number;
  uint32_t line;
};

class BodyParser : ParserBase {
 public:
  BodyParser(const Function& f, Body* body) : ParserBase(f.body, f.body_line), body_(body) {
    open_scope();
    for (const auto& v : f.results) scopes_[0].variables[v->name] = v.get();
    for (const auto& v : f.params) scopes_[0].variables[v->name] = v.get();
  }
  ParseError run();

 private:
  void open_scope();
  bool statement();
  bool directive();
  bool registers();
  bool instruction();
  bool operand(Operand* out);
  bool primary(Operand* out);
  bool name_operand(Operand* out);
  bool address(Operand* out);
  bool items(char close, std::vector<Operand>* out);
  bool label_table(std::string_view name);
  bool prototype(std::string_view name);
  bool constant(int64_t* out);
  int find_register(std::string_view name);
  Variable* find_variable(std::string_view name);
  int label_reference(std::string_view name);
  bool resolve_labels();

  Body* body_;
  std::vector<Scope> scopes_;
  std::vector<int> stack_;
  std::vector<PendingLabel> pending_;
  std::unordered_map<int, int> label_alias_;
};

void BodyParser::open_scope() {
  Scope s;
  s.parent = stack_.empty() ? -1 : stack_.back();
  scopes_.push_back(std::move(s));
  stack_.push_back(static_cast<int>(scopes_.size()) - 1);
}

ParseError BodyParser::run() {
  while (!failed() && lex_.peek().kind != TokenKind::end) statement();
  if (!failed() && stack_.size() != 1) fail("a '{' is not closed");
  if (!failed()) resolve_labels();
  return error_;
}

bool BodyParser::statement() {
  const Token& t = lex_.peek();
  if (t.is(';')) return lex_.accept(';');
  if (t.is('{')) {
    lex_.take();
    open_scope();
    return true;
  }
  if (t.is('}')) {
    lex_.take();
    if (stack_.size() == 1) return fail("a '}' too many");
    stack_.pop_back();
    return true;
  }
  if (t.kind == TokenKind::dotted) return directive();
  return instruction();
}

bool BodyParser::directive() {
  Token t = lex_.take();
  Space space;
  if (t.text == "reg") return registers();
  if (t.text == "loc" || t.text == "file") {
    while (lex_.peek().kind != TokenKind::end && lex_.peek().line == t.line) lex_.take();
    return true;
  }
  if (t.text == "pragma") {
    while (lex_.peek().kind == TokenKind::string) {
      lex_.take();
      lex_.accept(',');
    }
    return expect(';');
  }
  if (t.text == "extern" || t.text == "visible" || t.text == "weak") {
    bool external = t.text == "extern";
    t = lex_.take();
    if (external && t.is_dotted("shared")) {
      return variables(Space::shared, Linkage::external, [&](Variable v) {
        body_->variables.push_back(std::make_unique<Variable>(std::move(v)));
        auto* owned = body_->variables.back().get();
        scopes_[stack_.back()].variables[owned->name] = owned;
      });
    }
  }
  if (t.kind == TokenKind::dotted && space_of(t.text, &space)) {
    if (space == Space::global || space == Space::constant) {
      return fail("globals declared within functions are not supported");
    }
    return variables(space, Linkage::internal, [&](Variable v) {
      body_->variables.push_back(std::make_unique<Variable>(std::move(v)));
      auto* owned = body_->variables.back().get();
      scopes_[stack_.back()].variables[owned->name] = owned;
    });
  }
  return fail("unknown directive ." + std::string(t.text) + " in a function");
}

bool BodyParser::registers() {
  Token t = lex_.take();
  unsigned bits = t.kind == TokenKind::dotted ? type_bits(t.text) : 0;
  if (bits == 0) return fail("registers of type ." + std::string(t.text) + " are not supported");
  do {
    if (lex_.peek().kind != TokenKind::word) return fail("expected a register's name");
    std::string_view name = lex_.take().text;
    Scope& scope = scopes_[stack_.back()];
    if (lex_.accept('<')) {
      uint64_t count = lex_.take().bits;
      if (!expect('>')) return false;
      scope.ranges[name] = {count, bits};
    } else {
      scope.registers[name] = static_cast<int>(body_->registers.size());
      body_->registers.push_back({bits, name});
    }
  } while (lex_.accept(','));
  return expect(';');
}

int BodyParser::find_register(std::string_view name) {
  size_t digits = name.size();
  while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9') --digits;
  for (int s = stack_.back(); s >= 0; s = scopes_[s].parent) {
    Scope& scope = scopes_[s];
    if (auto it = scope.registers.find(name); it != scope.registers.end()) return it->second;
    if (digits == name.size()) continue;
    auto range = scope.ranges.find(name.substr(0, digits));
    if (range == scope.ranges.end()) continue;
    uint64_t number = 0;
    std::from_chars(name.data() + digits, name.data() + name.size(), number);
    if (number >= range->second.first) continue;
    int reg = static_cast<int>(body_->registers.size());
    body_->registers.push_back({range->second.second, name});
    scope.registers[name] = reg;
    return reg;
  }
  return -1;
}

Variable* BodyParser::find_variable(std::string_view name) {
  for (int s = stack_.back(); s >= 0; s = scopes_[s].parent) {
    auto it = scopes_[s].variables.find(name);
    if (it != scopes_[s].variables.end()) return it->second;
  }
  return nullptr;
}

int BodyParser::label_reference(std::string_view name) {
  int number = body_->label_count++;
  pending_.push_back({name, stack_.back(), number, lex_.peek().line});
  return number;
}

bool BodyParser::instruction() {
  Instruction i;
  const char* begin = lex_.token_begin();
  i.line = lex_.peek().line;
  if (lex_.accept('@')) {
    i.predicate_negated = lex_.accept('!');
    Token p = lex_.take();
    i.predicate = find_register(p.text);
    if (i.predicate < 0) return fail("unknown predicate '" + std::string(p.text) + "'");
  }
  if (lex_.peek().kind != TokenKind::word) {
    return fail("unexpected '" + std::string(lex_.peek().text) + "'");
  }
  i.words.push_back(lex_.take().text);
  if (lex_.peek().is(':')) {  // a label, perhaps that of a table
    lex_.take();
    if (lex_.peek().is_dotted("branchtargets")) return label_table(i.words[0]);
    if (lex_.peek().is_dotted("callprototype")) return prototype(i.words[0]);
    i.label = body_->label_count++;
    if (!scopes_[stack_.back()].labels.emplace(i.words[0], i.label).second) {
      return fail("label " + std::string(i.words[0]) + " is defined twice");
    }
    body_->code.push_back(std::move(i));
    return true;
  }
  while (lex_.peek().kind == TokenKind::dotted) i.words.push_back(lex_.take().text);
  if (!lex_.peek().is(';')) {
    do {
      Operand o;
      if (i.words[0] == "bra") {
        o.kind = Operand::Kind::label;
        o.reg = label_reference(lex_.take().text);
      } else if (!operand(&o)) {
        return false;
      }
      i.operands.push_back(std::move(o));
    } while (lex_.accept(','));
  }
  i.text = {begin, static_cast<size_t>(lex_.token_begin() + 1 - begin)};
  if (!expect(';')) return false;
  body_->code.push_back(std::move(i));
  return true;
}

bool BodyParser::items(char close, std::vector<Operand>* out) {
  if (lex_.accept(close)) return true;
  do {
    Operand o;
    if (!operand(&o)) return false;
    out->push_back(std::move(o));
  } while (lex_.accept(','));
  return expect(close);
}

bool BodyParser::operand(Operand* out) {
  Operand first;
  if (!primary(&first)) return false;
  if (!lex_.accept('|')) {
    *out = std::move(first);
    return true;
  }
  out->kind = Operand::Kind::pair;
  Operand second;
  if (!primary(&second)) return false;
  out->items.push_back(std::move(first));
  out->items.push_back(std::move(second));
  return true;
}

bool BodyParser::primary(Operand* out) {
  const Token& t = lex_.peek();
  if (lex_.accept('{')) {
    out->kind = Operand::Kind::vector;
    return items('}', &out->items);
  }
  if (lex_.accept('(')) {
    out->kind = Operand::Kind::list;
    return items(')', &out->items);
  }
  if (lex_.accept('[')) return address(out);
  if (lex_.accept('!')) {
    if (!primary(out)) return false;
    out->negated = true;
    return out->kind == Operand::Kind::reg || fail("'!' needs a predicate");
  }
  if (t.is('-') || t.is('~') || t.kind == TokenKind::integer) {
    int64_t value = 0;
    bool minus = lex_.peek().is('-');
    if (minus) {
      lex_.take();
      if (lex_.peek().kind == TokenKind::f32 || lex_.peek().kind == TokenKind::f64) {
        Token f = lex_.take();
        out->kind = f.kind == TokenKind::f32 ? Operand::Kind::f32 : Operand::Kind::f64;
        out->bits = f.bits ^ (f.kind == TokenKind::f32 ? 0x80000000u : uint64_t{1} << 63);
        return true;
      }
    }
    if (!constant(&value)) return false;
    out->kind = Operand::Kind::integer;
    out->bits = minus ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
    return true;
  }
  if (t.kind == TokenKind::f32 || t.kind == TokenKind::f64) {
    out->kind = t.kind == TokenKind::f32 ? Operand::Kind::f32 : Operand::Kind::f64;
    out->bits = lex_.take().bits;
    return true;
  }
  if (t.kind == TokenKind::word) return name_operand(out);
  return fail("unexpected '" + std::string(t.text) + "' as an operand");
}

bool BodyParser::constant(int64_t* out) {
  bool invert = lex_.accept('~');
  if (lex_.peek().kind != TokenKind::integer) return fail("expected a number");
  uint64_t value = lex_.take().bits;
  *out = static_cast<int64_t>(invert ? ~value : value);
  return true;
}

bool BodyParser::name_operand(Operand* out) {
  Token t = lex_.take();
  out->name = t.text;
  if (t.text == "_") {
    out->kind = Operand::Kind::sink;
    return true;
  }
  if (t.text == "WARP_SZ") {
    out->kind = Operand::Kind::integer;
    out->bits = 32;
    return true;
  }
  if (int reg = find_register(t.text); reg >= 0) {
    out->kind = Operand::Kind::reg;
    out->reg = reg;
    return true;
  }
  if (t.text[0] == '%' && !find_variable(t.text)) {
    out->kind = Operand::Kind::special;
    if (lex_.peek().kind == TokenKind::dotted) {
      Token component = lex_.take();
      out->name = {t.text.data(), static_cast<size_t>(component.text.end() - t.text.begin())};
    }
    return true;
  }
  out->kind = Operand::Kind::symbol;
  out->variable = find_variable(t.text);
  while (lex_.peek().is('+') || lex_.peek().is('-')) {
    bool minus = lex_.take().is('-');
    int64_t value;
    if (!constant(&value)) return false;
    out->offset += minus ? -value : value;
  }
  return true;
}

bool BodyParser::address(Operand* out) {
  out->kind = Operand::Kind::address;
  Operand base;
  if (!primary(&base)) return false;
  out->offset = base.offset;
  base.offset = 0;
  if (base.kind == Operand::Kind::integer) {
    out->offset += static_cast<int64_t>(base.bits);
    base.bits = 0;
  }
  out->items.push_back(std::move(base));
  while (lex_.peek().is('+') || lex_.peek().is('-')) {
    bool minus = lex_.take().is('-');
    minus ^= lex_.accept('-');
    int64_t value;
    if (!constant(&value)) return false;
    out->offset += minus ? -value : value;
  }
  while (lex_.accept(',')) {
    Operand more;
    if (!operand(&more)) return false;
    out->items.push_back(std::move(more));
  }
  return expect(']');
}

bool BodyParser::label_table(std::string_view name) {
  lex_.take();
  auto& table = body_->branch_targets[name];
  do {
    table.push_back(label_reference(lex_.take().text));
  } while (lex_.accept(','));
  return expect(';');
}

bool BodyParser::prototype(std::string_view name) {
  lex_.take();
  std::vector<std::unique_ptr<Variable>> results, params;
  if (lex_.peek().is('(') && !parameter_list(&results)) return false;
  lex_.take();  // _ or a name
  if (lex_.peek().is('(') && !parameter_list(&params)) return false;
  while (lex_.peek().kind == TokenKind::dotted) lex_.take();  // .noreturn
  Prototype& p = body_->prototypes[name];
  for (auto& v : results) p.results.push_back(*v);
  for (auto& v : params) p.params.push_back(*v);
  return expect(';');
}

bool BodyParser::resolve_labels() {
  // A branch is read before a label that follows it, so references wait until the end.
  auto find = [&](std::string_view name, int scope) {
    for (int s = scope; s >= 0; s = scopes_[s].parent) {
      auto it = scopes_[s].labels.find(name);
      if (it != scopes_[s].labels.end()) return it->second;
    }
    return -1;
  };
  for (const PendingLabel& p : pending_) {
    int target = find(p.name, p.scope);
    if (target < 0) {
      error_ = {"label " + std::string(p.name) + " is not defined", p.line};
      return false;
    }
    label_alias_[p.number] = target;
  }
  for (auto& [name, table] : body_->branch_targets) {
    for (int& label : table) label = label_alias_[label];
  }
  for (Instruction& i : body_->code) {
    for (Operand& o : i.operands) {
      if (o.kind == Operand::Kind::label) o.reg = label_alias_[o.reg];
    }
  }
  return true;
}

}  // namespace

ParseError parse_body(const Function& function, Body* body) {
  return BodyParser(function, body).run();
}

}  // namespace softgpu::ptx
