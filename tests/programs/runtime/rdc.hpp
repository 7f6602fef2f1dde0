// What the two files of the relocatable program share.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "runtime.hpp"

extern __device__ int shared_offset;
extern __device__ int polynomial(int x);
void launch_from_other_file(int* out, int count);
