// Threads inside a program that is not ours: no signals, small stacks, a name, never joined.
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace outboard::client {

/// Starts a detached thread named `name` (at most 15 characters). False where none can be had.
bool start_thread(const char* name, void* (*body)(void*), void* argument);

}  // namespace outboard::client
