// Entry points about the structure of graphs.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdio>

#include "graph_lookup.hpp"

using namespace softgpu;

namespace {

/// Copies handles out, as CUDA's list queries do: a null array asks for the count alone; entries
/// beyond what there is are set to null.
template <class Nodes>
CUresult list(const Nodes& nodes, CUgraphNode* out, CUgraphEdgeData* data, size_t* count) {
  if (count == nullptr) return CUDA_ERROR_INVALID_VALUE;
  if (out == nullptr) {
    *count = nodes.size();
    return CUDA_SUCCESS;
  }
  size_t i = 0;
  for (; i < std::min(*count, nodes.size()); ++i) {
    out[i] = nodes[i]->handle;
    if (data != nullptr) data[i] = {};
  }
  for (size_t j = i; j < *count; ++j) out[j] = nullptr;
  *count = i;
  return CUDA_SUCCESS;
}

bool plain(const CUgraphEdgeData* data, size_t count) {
  for (size_t i = 0; data != nullptr && i < count; ++i) {
    if (data[i].from_port != 0 || data[i].to_port != 0 || data[i].type != 0) return false;
  }
  return true;
}

CUresult change_edges(CUgraph handle, const CUgraphNode* from, const CUgraphNode* to,
                      const CUgraphEdgeData* data, size_t count, bool add) {
  return with_graph(handle, [&](Graph& graph) {
    if (count > 0 && (from == nullptr || to == nullptr)) return CUDA_ERROR_INVALID_VALUE;
    if (!plain(data, count)) return CUDA_ERROR_NOT_SUPPORTED;
    for (size_t i = 0; i < count; ++i) {
      auto a = graph_nodes().find(from[i]);
      auto b = graph_nodes().find(to[i]);
      if (!a || !b || a == b || a->graph != &graph || b->graph != &graph) {
        return CUDA_ERROR_INVALID_VALUE;
      }
      bool changed = add ? Graph::connect(a.get(), b.get()) : Graph::disconnect(a.get(), b.get());
      if (!changed) return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
  });
}

}  // namespace

extern "C" CUresult cuGraphCreate(CUgraph* out, unsigned int flags) {
  return with_driver([&] {
    if (out == nullptr || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    auto graph = std::make_shared<Graph>();
    graph->handle = graphs().insert(graph);
    *out = graph->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGraphDestroy(CUgraph handle) {
  return with_graph(handle, [&](Graph& graph) {
    if (graph.is_child) return CUDA_ERROR_INVALID_VALUE;
    graphs().erase(handle);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGraphClone(CUgraph* out, CUgraph handle) {
  return with_graph(handle, [&](Graph& graph) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    if (!graph.can_be_copied()) return CUDA_ERROR_NOT_SUPPORTED;
    auto copy = graph.clone();
    copy->handle = graphs().insert(copy);
    *out = copy->handle;
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGraphNodeFindInClone(CUgraphNode* out, CUgraphNode original, CUgraph clone) {
  return with_graph(clone, [&](Graph& graph) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    for (auto& node : graph.nodes) {
      if (node->original != original) continue;
      *out = node->handle;
      return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
  });
}

extern "C" CUresult cuGraphDestroyNode(CUgraphNode handle) {
  return with_node(handle, [](GraphNode& node) {
    node.graph->remove(&node);
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGraphNodeGetType(CUgraphNode handle, CUgraphNodeType* out) {
  return with_node(handle, [&](GraphNode& node) {
    if (out == nullptr) return CUDA_ERROR_INVALID_VALUE;
    *out = node.type();
    return CUDA_SUCCESS;
  });
}

extern "C" CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode* out, size_t* count) {
  return with_graph(handle, [&](Graph& graph) { return list(graph.nodes, out, nullptr, count); });
}

extern "C" CUresult cuGraphGetRootNodes(CUgraph handle, CUgraphNode* out, size_t* count) {
  return with_graph(handle, [&](Graph& graph) {
    std::vector<GraphNode*> roots;
    for (auto& node : graph.nodes) {
      if (node->dependencies.empty()) roots.push_back(node.get());
    }
    return list(roots, out, nullptr, count);
  });
}

extern "C" CUresult cuGraphGetEdges_v2(CUgraph handle, CUgraphNode* from, CUgraphNode* to,
                                       CUgraphEdgeData* data, size_t* count) {
  return with_graph(handle, [&](Graph& graph) {
    std::vector<GraphNode*> starts, ends;
    for (auto& node : graph.nodes) {
      for (GraphNode* before : node->dependencies) {
        starts.push_back(before);
        ends.push_back(node.get());
      }
    }
    if ((from == nullptr) != (to == nullptr) || count == nullptr) return CUDA_ERROR_INVALID_VALUE;
    size_t room = *count;
    CUresult r = list(starts, from, data, count);
    return r != CUDA_SUCCESS || to == nullptr ? r : list(ends, to, nullptr, &room);
  });
}
extern "C" CUresult cuGraphGetEdges(CUgraph handle, CUgraphNode* from, CUgraphNode* to,
                                    size_t* count) {
  return cuGraphGetEdges_v2(handle, from, to, nullptr, count);
}

extern "C" CUresult cuGraphNodeGetDependencies_v2(CUgraphNode handle, CUgraphNode* out,
                                                  CUgraphEdgeData* data, size_t* count) {
  return with_node(handle,
                   [&](GraphNode& node) { return list(node.dependencies, out, data, count); });
}
extern "C" CUresult cuGraphNodeGetDependencies(CUgraphNode handle, CUgraphNode* out,
                                               size_t* count) {
  return cuGraphNodeGetDependencies_v2(handle, out, nullptr, count);
}
extern "C" CUresult cuGraphNodeGetDependentNodes_v2(CUgraphNode handle, CUgraphNode* out,
                                                    CUgraphEdgeData* data, size_t* count) {
  return with_node(handle,
                   [&](GraphNode& node) { return list(node.dependents, out, data, count); });
}
extern "C" CUresult cuGraphNodeGetDependentNodes(CUgraphNode handle, CUgraphNode* out,
                                                 size_t* count) {
  return cuGraphNodeGetDependentNodes_v2(handle, out, nullptr, count);
}

extern "C" CUresult cuGraphAddDependencies_v2(CUgraph handle, const CUgraphNode* from,
                                              const CUgraphNode* to, const CUgraphEdgeData* data,
                                              size_t count) {
  return change_edges(handle, from, to, data, count, true);
}
extern "C" CUresult cuGraphAddDependencies(CUgraph handle, const CUgraphNode* from,
                                           const CUgraphNode* to, size_t count) {
  return change_edges(handle, from, to, nullptr, count, true);
}
extern "C" CUresult cuGraphRemoveDependencies_v2(CUgraph handle, const CUgraphNode* from,
                                                 const CUgraphNode* to, const CUgraphEdgeData* data,
                                                 size_t count) {
  return change_edges(handle, from, to, data, count, false);
}
extern "C" CUresult cuGraphRemoveDependencies(CUgraph handle, const CUgraphNode* from,
                                              const CUgraphNode* to, size_t count) {
  return change_edges(handle, from, to, nullptr, count, false);
}

extern "C" CUresult cuGraphDebugDotPrint(CUgraph handle, const char* path, unsigned int) {
  return with_graph(handle, [&](Graph& graph) {
    FILE* file = path != nullptr ? std::fopen(path, "w") : nullptr;
    if (file == nullptr) return CUDA_ERROR_OPERATING_SYSTEM;
    std::fprintf(file, "digraph graph_1 {\n");
    for (auto& node : graph.nodes) {
      std::fprintf(file, "  n%p [label=\"type %d\"];\n", static_cast<void*>(node.get()),
                   static_cast<int>(node->type()));
      for (GraphNode* before : node->dependencies) {
        std::fprintf(file, "  n%p -> n%p;\n", static_cast<void*>(before),
                     static_cast<void*>(node.get()));
      }
    }
    std::fprintf(file, "}\n");
    std::fclose(file);
    return CUDA_SUCCESS;
  });
}

// Memory of graphs lives as long as they do: there never is any to trim.
extern "C" CUresult cuDeviceGraphMemTrim(CUdevice ordinal) {
  return with_driver(
      [&] { return Driver::get().device(ordinal) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE; });
}
extern "C" CUresult cuDeviceGetGraphMemAttribute(CUdevice ordinal, CUgraphMem_attribute attribute,
                                                 void* value) {
  return with_driver([&] {
    if (Driver::get().device(ordinal) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    if (value == nullptr || attribute > CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    const bool high = attribute == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH ||
                      attribute == CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH;
    *static_cast<cuuint64_t*>(value) = high ? graph_memory().high : graph_memory().used;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuDeviceSetGraphMemAttribute(CUdevice ordinal, CUgraphMem_attribute attribute,
                                                 void* value) {
  return with_driver([&] {
    if (Driver::get().device(ordinal) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    const bool high = attribute == CU_GRAPH_MEM_ATTR_USED_MEM_HIGH ||
                      attribute == CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH;
    if (value == nullptr || !high || *static_cast<const cuuint64_t*>(value) != 0) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    graph_memory().high = graph_memory().used.load();
    return CUDA_SUCCESS;
  });
}

// User objects: something of the program's that lives as long as a graph does.
namespace softgpu {
namespace {

struct UserObject {
  void* data;
  CUhostFn destroy;
  std::atomic<unsigned> references;
  CUuserObject handle = nullptr;
};

HandleTable<UserObject, CUuserObject, 14>& user_objects() {
  static auto& table = *new HandleTable<UserObject, CUuserObject, 14>;
  return table;
}

CUresult drop(const std::shared_ptr<UserObject>& object, unsigned count) {
  if (!object || count == 0 || object->references.load() < count) return CUDA_ERROR_INVALID_VALUE;
  if (object->references.fetch_sub(count) == count) {
    user_objects().erase(object->handle);
    object->destroy(object->data);
  }
  return CUDA_SUCCESS;
}

}  // namespace
}  // namespace softgpu

extern "C" CUresult cuUserObjectCreate(CUuserObject* out, void* data, CUhostFn destroy,
                                       unsigned int references, unsigned int flags) {
  return with_driver([&] {
    if (out == nullptr || destroy == nullptr || references == 0 ||
        flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    auto object = std::make_shared<UserObject>();
    object->data = data;
    object->destroy = destroy;
    object->references.store(references);
    object->handle = user_objects().insert(object);
    *out = object->handle;
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuUserObjectRetain(CUuserObject handle, unsigned int count) {
  return with_driver([&] {
    auto object = user_objects().find(handle);
    if (!object || count == 0) return CUDA_ERROR_INVALID_VALUE;
    object->references.fetch_add(count);
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuUserObjectRelease(CUuserObject handle, unsigned int count) {
  return with_driver([&] { return drop(user_objects().find(handle), count); });
}
extern "C" CUresult cuGraphRetainUserObject(CUgraph handle, CUuserObject object_handle,
                                            unsigned int count, unsigned int flags) {
  return with_graph(handle, [&](Graph& graph) {
    auto object = user_objects().find(object_handle);
    if (!object || count == 0 || flags > CU_GRAPH_USER_OBJECT_MOVE) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    if (flags != CU_GRAPH_USER_OBJECT_MOVE) object->references.fetch_add(count);
    // One holder, shared by the graph, its clones and its executables; the last gives it back.
    graph.user_objects.emplace_back(object.get(), [object, count](void*) { drop(object, count); });
    return CUDA_SUCCESS;
  });
}
extern "C" CUresult cuGraphReleaseUserObject(CUgraph handle, CUuserObject object_handle,
                                             unsigned int) {
  return with_graph(handle, [&](Graph& graph) {
    auto object = user_objects().find(object_handle);
    auto found = std::find_if(graph.user_objects.begin(), graph.user_objects.end(),
                              [&](const auto& held) { return held.get() == object.get(); });
    if (!object || found == graph.user_objects.end()) return CUDA_ERROR_INVALID_VALUE;
    graph.user_objects.erase(found);
    return CUDA_SUCCESS;
  });
}
