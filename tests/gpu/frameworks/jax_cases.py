"""JAX: jit, grad, vmap, a training step, host callbacks, with its pre-allocation on.

SPDX-License-Identifier: Apache-2.0
"""

import os
from collections.abc import Mapping
from typing import Any

# XLA measures which kernels are fastest and takes others from one run to the next, natively, too.
os.environ.setdefault("XLA_FLAGS", "--xla_gpu_autotune_level=0")

import cases
import jax
import jax.numpy as jnp
import numpy as np
from cases import case


@case
def jitted() -> Mapping[str, Any]:
    a = jnp.asarray(np.random.default_rng(1).random((512, 512), dtype=np.float32))
    f = jax.jit(lambda x: jnp.tanh(x @ x.T).sum(1) + 1)
    return {"f": f(a), "sum": (a * 2 + 1).sum(), "platform": jax.devices()[0].platform}


@case
def grad_vmap() -> Mapping[str, Any]:
    def loss(w: Any, x: Any) -> Any:
        return jnp.sum(jnp.sin(x @ w) ** 2)

    rng = np.random.default_rng(2)
    w = jnp.asarray(rng.random((32, 8), dtype=np.float32))
    x = jnp.asarray(rng.random((16, 4, 32), dtype=np.float32))
    return {"grad": jax.grad(loss)(w, x[0]), "vmap": jax.vmap(jax.grad(loss), (None, 0))(w, x)}


@case
def training() -> Mapping[str, Any]:
    key = jax.random.PRNGKey(0)
    w = {"a": jax.random.normal(key, (64, 128)), "b": jax.random.normal(key, (128, 4))}
    x, y = jax.random.normal(key, (256, 64)), jnp.ones((256, 4))

    def loss(w: Any) -> Any:
        return jnp.mean((jax.nn.relu(x @ w["a"]) @ w["b"] - y) ** 2)

    @jax.jit
    def step(w: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(w)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, w, gradient), value

    losses = []
    for _ in range(20):
        w, value = step(w)
        losses.append(float(value))
    return {"losses": losses, "a": w["a"]}


@case
def bfloat16_convolution() -> Mapping[str, Any]:
    key = jax.random.PRNGKey(3)
    x = jax.random.normal(key, (8, 16, 32, 32), dtype=jnp.bfloat16)
    k = jax.random.normal(key, (32, 16, 3, 3), dtype=jnp.bfloat16)
    y = jax.jit(lambda a, b: jax.lax.conv(a, b, (1, 1), "SAME"))(x, k)
    z = jax.jit(lambda a: a.reshape(-1, 64) @ a.reshape(64, -1))(x)
    return {"y": y.astype(jnp.float32), "z": z.astype(jnp.float32)}


@case
def callbacks() -> Mapping[str, Any]:
    seen = []

    @jax.jit
    def f(x: Any) -> Any:
        jax.debug.callback(lambda v: seen.append(float(v)), x.sum())
        y = jax.pure_callback(lambda v: np.sort(v), jax.ShapeDtypeStruct(x.shape, x.dtype), x)
        return y * 2

    y = f(jnp.asarray(np.random.default_rng(5).random(100, dtype=np.float32)))
    jax.effects_barrier()
    return {"y": y, "seen": seen}


@case
def linalg_fft() -> Mapping[str, Any]:
    a = jnp.asarray(np.random.default_rng(7).random((48, 48), dtype=np.float32))
    return {
        "svd": jnp.linalg.svd(a)[1],
        "cholesky": jnp.linalg.cholesky(a @ a.T + 48 * jnp.eye(48)),
        "fft": jnp.fft.fft(a),
        "sort": jnp.sort(a, axis=1),
        "scan": jax.lax.scan(lambda c, x: (c * 0.9 + x, c), jnp.zeros(48), a)[1],
    }


@case
def memory() -> Mapping[str, Any]:
    # Pre-allocation is on by default and takes three quarters of what is free.
    statistics = jax.devices()[0].memory_stats() or {}
    b = jax.device_put(np.arange(1 << 20, dtype=np.float32))
    return {"pool": statistics.get("bytes_limit", 0) > 0, "b": b + 1}


if __name__ == "__main__":
    cases.main()
