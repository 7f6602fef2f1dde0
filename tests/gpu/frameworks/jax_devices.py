"""JAX on two devices: arrays in pieces, a step in which they are added up.

SPDX-License-Identifier: Apache-2.0
"""

from collections.abc import Mapping
from typing import Any

import cases
import jax
import jax.numpy as jnp
import numpy as np
from cases import case
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def draw(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)


@case
def copied() -> Mapping[str, Any]:
    x = jax.device_put(draw(512, 512), jax.devices()[0])
    y = jax.device_put(x * 2, jax.devices()[1])
    return {"y": np.asarray(y + 1)}


@case
def in_pieces() -> Mapping[str, Any]:
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    whole = NamedSharding(mesh, PartitionSpec())
    x, w = jax.device_put(draw(256, 64), rows), jax.device_put(draw(64, 8), whole)

    @jax.jit
    def gradient(w: Any, x: Any) -> Any:
        return jax.grad(lambda w: jnp.mean(jnp.tanh(x @ w) ** 2))(w)

    return {"gradient": np.asarray(gradient(w, x))}


if __name__ == "__main__":
    cases.main()
