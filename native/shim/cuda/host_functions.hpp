// The program's functions that streams and graphs call, and the objects that graphs keep for it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>
#include <memory>

namespace outboard::client {
class Server;
}

namespace outboard::shim {

struct LaunchPlan;
struct Stream;

/// Queues a host function for a stream: its id travels, the pointer stays here.
CUresult add_host_function(Stream* stream, CUhostFn function, void* data);
CUresult add_callback(Stream* stream, CUstreamCallback function, void* data);

/// A function that graphs call, any number of times. The number names it to the server, which says
/// when no graph has it any more.
uint64_t register_function(CUhostFn function, void* data);
bool find_registered(uint64_t number, CUDA_HOST_NODE_PARAMS* out);
/// A launch of a graph is about to be sent that calls the function once.
void expect_call(uint64_t number, Stream* stream, std::shared_ptr<const LaunchPlan> plan,
                 size_t place);

/// What the server's connection tells (from its reader's thread).
void host_function_due(uint64_t function);
void graph_function_due(client::Server* server, uint64_t call, uint64_t number);
void released_by_graph(uint64_t number);

}  // namespace outboard::shim
