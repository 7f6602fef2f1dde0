// Threads of one warp take different paths, loops, switches, recursion and function pointers.
// SPDX-License-Identifier: Apache-2.0
#include "runtime.hpp"

#define BOTH __host__ __device__

// Steps of the 3n+1 sequence: every thread leaves the loop at another time.
BOTH inline unsigned collatz(unsigned n) {
  unsigned steps = 0;
  while (n != 1) {
    n = n % 2 == 0 ? n / 2 : 3 * n + 1;
    ++steps;
  }
  return steps;
}

BOTH inline unsigned fold(unsigned n) {
  switch (n % 7) {
    case 0:
      return n * 3;
    case 1:
      return n ^ 0x5a5a;
    case 2: {
      unsigned sum = 0;
      for (unsigned i = 0; i < n % 19; ++i) {
        if (i % 5 == 3) continue;
        if (sum > 1000) break;
        sum += i * n;
      }
      return sum;
    }
    case 3:
      return n >> 3;
    case 4:
      return n > 500 ? n - 500 : 500 - n;
    case 5:
      return collatz(n + 1);
    default:
      return ~n;
  }
}

// Kept out of line, so that the calls are made by threads whose depths differ.
BOTH __noinline__ unsigned ackermann(unsigned m, unsigned n) {
  if (m == 0) return n + 1;
  if (n == 0) return ackermann(m - 1, 1);
  return ackermann(m - 1, ackermann(m, n - 1));
}

BOTH inline unsigned twice(unsigned n) { return 2 * n; }
BOTH inline unsigned square(unsigned n) { return n * n; }
BOTH inline unsigned negate_bits(unsigned n) { return ~n; }

using Operation = unsigned (*)(unsigned);

__global__ void diverge(unsigned* out, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const Operation operations[] = {twice, square, negate_bits};
  unsigned value = collatz(i + 1) * 1000 + fold(i);
  if (i % 64 < 3) value += ackermann(2, i % 4);
  value ^= operations[i % 3](i);
  out[i] = value;
}

int main(int argc, char** argv) {
  Program program("divergent", argc, argv);
  constexpr int kCount = 3000;
  const DeviceBuffer<unsigned> device(kCount);
  diverge<<<(kCount + 127) / 128, 128>>>(device.get(), kCount);
  CHECK(cudaGetLastError());
  const std::vector<unsigned> out = device.download();
  const Operation operations[] = {twice, square, negate_bits};
  int wrong = 0;
  for (int i = 0; i < kCount; ++i) {
    unsigned expected = collatz(i + 1) * 1000 + fold(i);
    if (i % 64 < 3) expected += ackermann(2, i % 4);
    expected ^= operations[i % 3](i);
    if (out[i] != expected) ++wrong;
  }
  std::printf("%d of %d wrong\n", wrong, kCount);
  program.expect(wrong == 0, "every thread took its own path");
  program.save(out);
  return program.finish();
}
