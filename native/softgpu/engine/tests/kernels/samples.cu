// Kernels of everyday shapes; samples.ptx is `nvcc -ptx -arch=compute_80 -o ../ptx/samples.ptx` of
// this. SPDX-License-Identifier: Apache-2.0
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cassert>
#include <cstdio>

namespace cg = cooperative_groups;

extern "C" __global__ void vector_add(const float* a, const float* b, float* c, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) c[i] = a[i] + b[i];
}

template <int tile>
__device__ void multiply(float* c, const float* a, const float* b, int wa, int wb) {
  __shared__ float as[tile][tile];
  __shared__ float bs[tile][tile];
  int tx = threadIdx.x, ty = threadIdx.y;
  int row = blockIdx.y * tile + ty, column = blockIdx.x * tile + tx;
  float sum = 0;
  for (int k0 = 0; k0 < wa; k0 += tile) {
    as[ty][tx] = a[row * wa + k0 + tx];
    bs[ty][tx] = b[(k0 + ty) * wb + column];
    __syncthreads();
#pragma unroll
    for (int k = 0; k < tile; ++k) sum += as[ty][k] * bs[k][tx];
    __syncthreads();
  }
  c[row * wb + column] = sum;
}
extern "C" __global__ void matrix_multiply_32(float* c, const float* a, const float* b, int wa,
                                              int wb) {
  multiply<32>(c, a, b, wa, wb);
}
extern "C" __global__ void matrix_multiply_16(float* c, const float* a, const float* b, int wa,
                                              int wb) {
  multiply<16>(c, a, b, wa, wb);
}

extern "C" __global__ void reduce_shuffle(const int* in, int* out, int n) {
  int sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    sum += in[i];
  for (int d = 16; d; d >>= 1) sum += __shfl_down_sync(0xffffffffu, sum, d);
  __shared__ int warps[32];
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x < 32) {
    sum = threadIdx.x < blockDim.x / 32 ? warps[threadIdx.x] : 0;
    for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    if (threadIdx.x == 0) atomicAdd(out, sum);
  }
}

extern "C" __global__ void histogram(const unsigned char* in, unsigned* out, int n) {
  __shared__ unsigned bins[256];
  for (int i = threadIdx.x; i < 256; i += blockDim.x) bins[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    atomicAdd(&bins[in[i]], 1u);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 256; i += blockDim.x) atomicAdd(&out[i], bins[i]);
}

extern "C" __global__ void transpose(const float* in, float* out, int w, int h) {
  __shared__ float tile[32][33];
  int x = blockIdx.x * 32 + threadIdx.x;
  for (int j = 0; j < 32; j += 8) {
    int y = blockIdx.y * 32 + threadIdx.y + j;
    if (x < w && y < h) tile[threadIdx.y + j][threadIdx.x] = in[y * w + x];
  }
  __syncthreads();
  x = blockIdx.y * 32 + threadIdx.x;
  for (int j = 0; j < 32; j += 8) {
    int y = blockIdx.x * 32 + threadIdx.y + j;
    if (x < h && y < w) out[y * h + x] = tile[threadIdx.x][threadIdx.y + j];
  }
}

extern "C" __global__ void mandelbrot(int* out, int w, int h, int limit) {
  int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= w || y >= h) return;
  float cr = -2.0f + 3.0f * x / w, ci = -1.5f + 3.0f * y / h, zr = 0, zi = 0;
  int n = 0;
  while (n < limit && zr * zr + zi * zi < 4.0f) {
    float t = zr * zr - zi * zi + cr;
    zi = 2 * zr * zi + ci;
    zr = t;
    ++n;
  }
  out[y * w + x] = n;
}

extern "C" __global__ void softmax(const float* in, float* out, int columns) {
  extern __shared__ float shared[];
  const float* row = in + blockIdx.x * columns;
  float top = -INFINITY;
  for (int i = threadIdx.x; i < columns; i += blockDim.x) top = fmaxf(top, row[i]);
  shared[threadIdx.x] = top;
  __syncthreads();
  for (int d = blockDim.x / 2; d; d >>= 1) {
    if (threadIdx.x < d) shared[threadIdx.x] = fmaxf(shared[threadIdx.x], shared[threadIdx.x + d]);
    __syncthreads();
  }
  top = shared[0];
  __syncthreads();
  float sum = 0;
  for (int i = threadIdx.x; i < columns; i += blockDim.x) sum += expf(row[i] - top);
  shared[threadIdx.x] = sum;
  __syncthreads();
  for (int d = blockDim.x / 2; d; d >>= 1) {
    if (threadIdx.x < d) shared[threadIdx.x] += shared[threadIdx.x + d];
    __syncthreads();
  }
  for (int i = threadIdx.x; i < columns; i += blockDim.x) {
    out[blockIdx.x * columns + i] = expf(row[i] - top) / shared[0];
  }
}

extern "C" __global__ void spin_lock(int* lock, int* counter) {
  while (atomicCAS(lock, 0, 1) != 0) {
  }
  __threadfence();
  *(volatile int*)counter = *(volatile int*)counter + 1;
  __threadfence();
  atomicExch(lock, 0);
}

// Each block publishes its sum and looks back at all blocks before it.
extern "C" __global__ void look_back_scan(const int* in, int* out, volatile int* state,
                                          volatile int* prefix, int* ticket) {
  __shared__ int block, before;
  if (threadIdx.x == 0) block = atomicAdd(ticket, 1);
  __syncthreads();
  __shared__ int scan[256];
  int i = block * 256 + threadIdx.x;
  scan[threadIdx.x] = in[i];
  __syncthreads();
  for (int d = 1; d < 256; d *= 2) {
    int v = threadIdx.x >= d ? scan[threadIdx.x - d] : 0;
    __syncthreads();
    scan[threadIdx.x] += v;
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    before = 0;
    if (block > 0) {
      while (state[block - 1] == 0) {
      }
      __threadfence();
      before = prefix[block - 1];
    }
    prefix[block] = before + scan[255];
    __threadfence();
    state[block] = 1;
  }
  __syncthreads();
  out[i] = before + scan[threadIdx.x];
}

// Waits for a later block, which only works when both are resident.
extern "C" __global__ void wait_for_last(volatile int* flag, int* out) {
  if (blockIdx.x == gridDim.x - 1) {
    flag[0] = 1;
  } else {
    while (flag[0] == 0) {
    }
  }
  out[blockIdx.x] = 1;
}

extern "C" __global__ void last_block(const int* in, int* partial, int* out, unsigned* count,
                                      int n) {
  __shared__ int sum;
  __shared__ bool last;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(&sum, in[i]);
  __syncthreads();
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    __threadfence();
    last = atomicInc(count, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    int total = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) total += ((volatile int*)partial)[b];
    *out = total;
  }
}

extern "C" __global__ void grid_barrier(int* x, int rounds) {
  cg::grid_group grid = cg::this_grid();
  for (int r = 0; r < rounds; ++r) {
    atomicAdd(&x[r], 1);
    grid.sync();
    if (x[r] != gridDim.x * blockDim.x) x[rounds] = 1;
    grid.sync();
  }
}

__device__ __noinline__ int fibonacci(int n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}
extern "C" __global__ void recursion(int* out) { out[threadIdx.x] = fibonacci(threadIdx.x % 12); }
__device__ __noinline__ int endless(volatile int* p, int n) {
  int deeper = *p == n ? 0 : endless(p, n + 1);
  return deeper + *p;
}
extern "C" __global__ void stack_overflow(int* out) { *out = endless(out, 1000000000); }

typedef int (*Function)(int);
__device__ __noinline__ int plus_one(int x) { return x + 1; }
__device__ __noinline__ int twice(int x) { return x * 2; }
__device__ __noinline__ int square(int x) { return x * x; }
__device__ Function functions[3] = {plus_one, twice, square};
extern "C" __global__ void function_pointers(int* out) {
  out[threadIdx.x] = functions[threadIdx.x % 3](threadIdx.x);
}

struct Big {
  double v[6];
  int n;
};
__device__ __noinline__ Big grow(Big b, int by) {
  for (int i = 0; i < 6; ++i) b.v[i] += by * i;
  b.n += by;
  return b;
}
extern "C" __global__ void aggregates(Big b, double* out) {
  Big r = grow(b, threadIdx.x);
  double sum = r.n;
  for (int i = 0; i < 6; ++i) sum += r.v[i];
  out[threadIdx.x] = sum;
}

extern "C" __global__ void local_array(int* out, int n) {
  int stack[64];
  for (int i = 0; i < 64; ++i) stack[i] = i * threadIdx.x;
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += stack[(i * 7 + threadIdx.x) % 64];
  out[threadIdx.x] = sum;
}

extern "C" __global__ void device_printf(int n) {
  if (threadIdx.x < 2) {
    printf("thread %d of %u: %5.2f|%-6s|%c|%lld|%x|%%\n", threadIdx.x, blockDim.x, n * 0.5, "text",
           'A' + threadIdx.x, 1234567890123ll, 255);
  }
}
extern "C" __global__ void device_malloc(int** slots, int* sums) {
  int* p = (int*)malloc(sizeof(int) * (threadIdx.x + 1));
  for (int i = 0; i <= threadIdx.x; ++i) p[i] = i;
  slots[threadIdx.x] = p;
  __syncthreads();
  int* q = slots[(threadIdx.x + 1) % blockDim.x];
  int sum = 0;
  for (int i = 0; i <= (threadIdx.x + 1) % blockDim.x; ++i) sum += q[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  free(p);
}
extern "C" __global__ void device_assert(int n) { assert(threadIdx.x != n); }

extern "C" __global__ void wild_store(int* p) { p[threadIdx.x] = 1; }
extern "C" __global__ void misaligned_load(char* p, int* out) { *out = *(int*)(p + 1); }
extern "C" __global__ void trapping(int n) {
  if (threadIdx.x == n) __trap();
}
extern "C" __global__ void endless_loop(volatile int* p) {
  while (*p == 0) {
  }
}
extern "C" __global__ void shared_overrun(int* out, int i) {
  __shared__ int s[32];
  s[threadIdx.x] = 1;
  ((volatile int*)s)[i] = 5;
  *out = s[0];
}

extern "C" __global__ void half_math(const float* in, float* out, int n) {
  int i = threadIdx.x;
  if (i >= n) return;
  __half h = __float2half(in[i]);
  __half2 h2 = __half2half2(h);
  h2 = __hfma2(h2, h2, __floats2half2_rn(0.5f, 0.25f));
  __nv_bfloat16 b = __float2bfloat16(in[i]);
  b = __hmul(b, b);
  out[4 * i] = __low2float(h2);
  out[4 * i + 1] = __high2float(h2);
  out[4 * i + 2] = __bfloat162float(b);
  out[4 * i + 3] = __half2float(__hmax(h, __float2half(0.f)));
}

extern "C" __global__ void wide_math(unsigned long long* out, unsigned long long a,
                                     unsigned long long b) {
  unsigned __int128 p = (unsigned __int128)a * b;
  unsigned __int128 s = p + (((unsigned __int128)b << 64) | a);
  out[0] = (unsigned long long)p;
  out[1] = (unsigned long long)(p >> 64);
  out[2] = (unsigned long long)s;
  out[3] = (unsigned long long)(s >> 64);
  out[4] = __umul64hi(a, b);
}

__constant__ int table[8] = {3, 1, 4, 1, 5, 9, 2, 6};
__device__ int counter = 40;
extern "C" __global__ void symbols(int* out) {
  out[threadIdx.x] = table[threadIdx.x % 8] + counter;
  if (threadIdx.x == 0) atomicAdd(&counter, 2);
}

extern "C" __global__ void warp_functions(unsigned* out) {
  unsigned lane = threadIdx.x % 32;
  unsigned* o = out + threadIdx.x * 8;
  o[0] = __ballot_sync(0xffffffffu, lane % 3 == 0);
  o[1] = __match_any_sync(0xffffffffu, lane / 4);
  o[2] = __reduce_add_sync(0xffffffffu, lane);
  o[3] = __shfl_up_sync(0xffffffffu, lane, 3, 8);
  o[4] = __any_sync(0xffffffffu, lane == 31) + 2 * __all_sync(0xffffffffu, lane < 31);
  if (lane & 1)
    o[5] = __activemask();
  else
    o[5] = __popc(__activemask());
  o[6] = __shfl_sync(0xffffffffu, lane * 2, 31 - lane);
  auto tile = cg::tiled_partition<4>(cg::this_thread_block());
  o[7] = cg::reduce(tile, lane, cg::plus<unsigned>());
}
extern "C" __global__ void divergent_sync(int* out) {
  // Halves of a warp take different ways and meet in a shuffle.
  int lane = threadIdx.x % 32, v;
  if (lane < 16) {
    v = lane;
    for (int i = 0; i < lane; ++i) v += i;
  } else {
    v = 1000 + lane;
  }
  __syncwarp();
  out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, v, 16);
}
extern "C" __global__ void barrier_functions(int* out) {
  int a = __syncthreads_count(threadIdx.x % 3 == 0);
  int b = __syncthreads_and(threadIdx.x < 1000);
  int c = __syncthreads_or(threadIdx.x == 5);
  out[threadIdx.x] = a * 4 + (b ? 2 : 0) + (c ? 1 : 0);
}
extern "C" __global__ void early_exit(int* out) {
  __shared__ int s;
  if (threadIdx.x == 0) s = 0;
  __syncthreads();
  if (threadIdx.x >= 100) return;
  atomicAdd(&s, 1);
  __syncthreads();
  out[threadIdx.x] = s;
}
extern "C" __global__ void doubles(const double* in, double* out) {
  int i = threadIdx.x;
  double x = in[i];
  out[6 * i] = exp(x);
  out[6 * i + 1] = log(fabs(x) + 1);
  out[6 * i + 2] = sin(x);
  out[6 * i + 3] = pow(fabs(x), 1.5);
  out[6 * i + 4] = sqrt(fabs(x)) / (x + 10);
  out[6 * i + 5] = __fma_rz(x, x, 1e-17);
}
extern "C" __global__ void floats(const float* in, float* out) {
  int i = threadIdx.x;
  float x = in[i];
  out[6 * i] = expf(x);
  out[6 * i + 1] = logf(fabsf(x) + 1);
  out[6 * i + 2] = sinf(x);
  out[6 * i + 3] = powf(fabsf(x), 1.5f);
  out[6 * i + 4] = rsqrtf(fabsf(x) + 1) + erff(x);
  out[6 * i + 5] = tanhf(x) + cbrtf(x);
}
