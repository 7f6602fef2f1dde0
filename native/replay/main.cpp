// outboard-replay: feeds a recording of the wire to a worker and compares the results.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "replay/player.hpp"
#include "replay/recording.hpp"
#include "worker/startup.hpp"

namespace outboard::replay {
namespace {

constexpr const char* usage =
    "usage: outboard-replay FILE --driver PATH [--time]\n"
    "\n"
    "  outboard-replay run.obrec --driver $PWD/build/lib/nulldriver/libcuda.so.1 --time\n"
    "\n"
    "FILE was written by a program that ran with OUTBOARD_RECORD=FILE. Exits with 0 where every "
    "answer\n"
    "had the recorded result, 3 where some had another, 1 where the replay could not go on.\n";

int report(const Outcome& outcome, bool time) {
  for (const std::string& difference : outcome.differences) std::printf("%s\n", difference.c_str());
  std::printf("%llu frames, %llu commands, %llu answers, %zu of them other than recorded\n",
              static_cast<unsigned long long>(outcome.frames),
              static_cast<unsigned long long>(outcome.commands),
              static_cast<unsigned long long>(outcome.replies), outcome.differences.size());
  if (time) std::printf("%.6f s\n", outcome.seconds);
  if (!outcome.error.empty()) {
    std::fprintf(stderr, "outboard: replay: %s\n", outcome.error.c_str());
    return 1;
  }
  return outcome.differences.empty() ? 0 : 3;
}

int run(int argc, char** argv) {
  std::string file;
  std::string driver_path;
  bool time = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--time") == 0) {
      time = true;
    } else if (std::strcmp(argv[i], "--driver") == 0 && i + 1 < argc) {
      driver_path = argv[++i];
    } else if (file.empty() && argv[i][0] != '-') {
      file = argv[i];
    } else {
      std::fputs(usage, stderr);
      return 2;
    }
  }
  if (file.empty() || driver_path.empty()) {
    std::fputs(usage, stderr);
    return 2;
  }
  worker::use_legacy_layout(argv);
  std::vector<Record> records;
  std::string error;
  if (!read_recording(file, &records, &error)) {
    std::fprintf(stderr, "outboard: replay: %s: %s\n", file.c_str(), error.c_str());
    return 1;
  }
  const auto driver = worker::open_driver(driver_path, &error);
  if (!driver || driver->cuInit(0) != CUDA_SUCCESS) {
    std::fprintf(stderr, "outboard: replay: %s\n",
                 error.empty() ? "the driver does not start" : error.c_str());
    return 1;
  }
  const int code = report(play(records, *driver), time);
  std::fflush(stdout);
  ::_exit(code);  // the driver's threads are left as they are
}

}  // namespace
}  // namespace outboard::replay

int main(int argc, char** argv) { return outboard::replay::run(argc, argv); }
