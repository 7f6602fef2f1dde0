// What every test program shares: its options, its result buffers, its last line and its exit code.
// SPDX-License-Identifier: Apache-2.0
//
// A program prints what it found, writes its result buffers raw to the file named by --out (so that
// two ways of running it can be compared byte by byte), and ends with 0 if all was right, 1 if not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

class Program {
 public:
  Program(const char* name, int argc, char** argv) : name_(name) {
    if (argc % 2 == 0) die("options come as --NAME VALUE");
    for (int i = 1; i < argc; i += 2) {
      if (std::strncmp(argv[i], "--", 2) != 0) die("options come as --NAME VALUE");
      options_.push_back({argv[i] + 2, argv[i + 1]});
    }
  }

  long number(const char* option, long otherwise) const {
    const char* text = find(option);
    return text == nullptr ? otherwise : std::strtol(text, nullptr, 10);
  }

  const char* text(const char* option, const char* otherwise) const {
    const char* text = find(option);
    return text == nullptr ? otherwise : text;
  }

  // Records whether a promise held, and says which one did not.
  void expect(bool held, const char* promise) {
    if (held) return;
    passed_ = false;
    std::fprintf(stderr, "%s: not so: %s\n", name_, promise);
  }

  template <typename T>
  void save(const std::vector<T>& values) {
    save(values.data(), values.size() * sizeof(T));
  }

  void save(const void* data, size_t size_bytes) {
    const auto* bytes = static_cast<const uint8_t*>(data);
    results_.insert(results_.end(), bytes, bytes + size_bytes);
  }

  // Writes the results and prints the verdict. Returns the exit code.
  int finish() {
    const char* path = find("out");
    if (path != nullptr) write_results(path);
    std::printf("%s: Result = %s\n", name_, passed_ ? "PASS" : "FAIL");
    std::fflush(stdout);
    return passed_ ? 0 : 1;
  }

  [[noreturn]] void die(const char* why) const {
    std::fprintf(stderr, "%s: %s\n", name_, why);
    std::exit(1);
  }

 private:
  struct Option {
    std::string name;
    const char* value;
  };

  const char* find(const char* option) const {
    for (const Option& candidate : options_) {
      if (candidate.name == option) return candidate.value;
    }
    return nullptr;
  }

  void write_results(const char* path) const {
    std::FILE* file = std::fopen(path, "wb");
    if (file == nullptr) die("the file for the results cannot be opened");
    const size_t written =
        results_.empty() ? 0 : std::fwrite(results_.data(), 1, results_.size(), file);
    if (std::fclose(file) != 0 || written != results_.size()) die("the results cannot be written");
  }

  const char* name_;
  bool passed_ = true;
  std::vector<Option> options_;
  std::vector<uint8_t> results_;
};

// Numbers that look random and are the same in every run.
class Sequence {
 public:
  explicit Sequence(uint32_t seed) : state_(seed * 2654435761U + 1) {}
  uint32_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 17;
    state_ ^= state_ << 5;
    return state_;
  }
  // In [0, 1), with few enough bits that sums of many stay exact.
  float fraction() { return static_cast<float>(next() % 1024) / 1024.0F; }

 private:
  uint32_t state_;
};
