// Device printf: formatting as C does, arguments packed as CUDA's compilers pack them.
// SPDX-License-Identifier: Apache-2.0
#include "printf.hpp"

#include <cstdio>
#include <cstring>

namespace softgpu::simt {
namespace {

/// One conversion, such as "%-8.3llx".
struct Conversion {
  std::string flags;  ///< flags, width and precision, with every * replaced
  std::string length;
  char letter = 0;
};

template <class T>
void append(std::string* out, const Conversion& c, std::string_view length, T value) {
  std::string spec = "%" + c.flags + std::string(length) + c.letter;
  char small[256];
  int n = std::snprintf(small, sizeof small, spec.c_str(), value);
  if (n < 0) return;
  if (static_cast<size_t>(n) < sizeof small) {
    out->append(small, static_cast<size_t>(n));
    return;
  }
  std::string big(static_cast<size_t>(n) + 1, '\0');
  std::snprintf(big.data(), big.size(), spec.c_str(), value);
  out->append(big.data(), static_cast<size_t>(n));
}

/// Reads arguments in order, each at its natural alignment.
class Arguments {
 public:
  explicit Arguments(const std::function<bool(uint64_t, void*, uint32_t)>& read) : read_(read) {}
  template <class T>
  bool next(T* value) {
    at_ = (at_ + sizeof(T) - 1) / sizeof(T) * sizeof(T);
    if (!read_(at_, value, sizeof(T))) return false;
    at_ += sizeof(T);
    return true;
  }

 private:
  const std::function<bool(uint64_t, void*, uint32_t)>& read_;
  uint64_t at_ = 0;
};

bool integer(Arguments& arguments, const Conversion& c, bool is_signed, std::string* out) {
  bool wide =
      c.length == "l" || c.length == "ll" || c.length == "j" || c.length == "z" || c.length == "t";
  if (wide) {
    long long v;
    if (!arguments.next(&v)) return false;
    append(out, c, "ll", v);
    return true;
  }
  int v;
  if (!arguments.next(&v)) return false;
  if (c.length == "hh") v = is_signed ? static_cast<signed char>(v) : static_cast<unsigned char>(v);
  if (c.length == "h") v = is_signed ? static_cast<short>(v) : static_cast<unsigned short>(v);
  append(out, c, "", v);
  return true;
}

bool text(Arguments& arguments, const Conversion& c,
          const std::function<bool(uint64_t, std::string*)>& string, std::string* out) {
  uint64_t address;
  std::string value;
  if (!arguments.next(&address)) return false;
  if (address == 0)
    value = "(null)";
  else if (!string(address, &value))
    return false;
  append(out, c, "", value.c_str());
  return true;
}

bool convert(Arguments& arguments, const Conversion& c,
             const std::function<bool(uint64_t, std::string*)>& string, std::string* out) {
  switch (c.letter) {
    case 'd':
    case 'i':
      return integer(arguments, c, true, out);
    case 'u':
    case 'o':
    case 'x':
    case 'X':
      return integer(arguments, c, false, out);
    case 'c': {
      int v;
      if (!arguments.next(&v)) return false;
      append(out, c, "", v);
      return true;
    }
    case 'f':
    case 'F':
    case 'e':
    case 'E':
    case 'g':
    case 'G':
    case 'a':
    case 'A': {
      double v;
      if (!arguments.next(&v)) return false;
      append(out, c, "", v);
      return true;
    }
    case 's':
      return text(arguments, c, string, out);
    case 'p': {
      void* v;
      if (!arguments.next(&v)) return false;
      append(out, c, "", v);
      return true;
    }
    default:  // unknown (and %n, which CUDA does not have): as it stands
      *out += "%" + c.flags + c.length + c.letter;
      return true;
  }
}

}  // namespace

void PrintfSink::set(std::function<void(std::string_view)> sink) {
  std::lock_guard lock(mutex_);
  sink_ = std::move(sink);
}

void PrintfSink::write(std::string_view text) {
  std::lock_guard lock(mutex_);
  if (sink_) {
    sink_(text);
  } else {
    std::fwrite(text.data(), 1, text.size(), stdout);
  }
}

bool format_device_text(std::string_view format,
                        const std::function<bool(uint64_t, void*, uint32_t)>& read,
                        const std::function<bool(uint64_t, std::string*)>& string, std::string* out,
                        int* count) {
  Arguments arguments(read);
  size_t i = 0;
  while (i < format.size()) {
    if (format[i] != '%') {
      *out += format[i++];
      continue;
    }
    if (i + 1 < format.size() && format[i + 1] == '%') {
      *out += '%';
      i += 2;
      continue;
    }
    Conversion c;
    ++i;
    while (i < format.size() && std::strchr("-+ #0123456789.*", format[i])) {
      if (format[i] == '*') {
        int v;
        if (!arguments.next(&v)) return false;
        c.flags += std::to_string(v);
        ++*count;
      } else {
        c.flags += format[i];
      }
      ++i;
    }
    while (i < format.size() && std::strchr("hljztL", format[i])) c.length += format[i++];
    if (i >= format.size()) {
      *out += "%" + c.flags + c.length;
      break;
    }
    c.letter = format[i++];
    if (!convert(arguments, c, string, out)) return false;
    ++*count;
  }
  return true;
}

}  // namespace softgpu::simt
