// The fallback of a driver entry point that this library does not have.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace outboard {

/// Says once for each name on stderr that the function is not there. Returns
/// CUDA_ERROR_NOT_SUPPORTED. `said` belongs to the name.
int unsupported(const char* name, char* said);

}  // namespace outboard

// Weak, so that a real definition in another file of the library replaces it. The parameters do not
// matter: nothing is read from them. This file must not see cuda.h, which declares them.
#define OUTBOARD_UNSUPPORTED(name)                                     \
  extern "C" __attribute__((weak, visibility("default"))) int name() { \
    static char said;                                                  \
    return outboard::unsupported(#name, &said);                        \
  }
// The same of a function that a driver answers with one error whatever it is asked.
#define OUTBOARD_ANSWERED(name, answer) \
  extern "C" __attribute__((weak, visibility("default"))) int name() { return answer; }
