"""The programs that give the same result buffers however they run: here, or through Outboard.

SPDX-License-Identifier: Apache-2.0

`tests/integration/test_programs.py` compares the software GPU, `tests/gpu/programs.py` a real one.
"""

from __future__ import annotations

RUNTIME_PROGRAMS = [
    "matrixMul",
    "vectorAdd",
    "reduction",
    "histogram",
    "transpose",
    "divergent",
    "dynamicShared",
    "symbols",
    "streams",
    "uploadOrder",
    "devicePrintf",
    "deviceAssert",
    "perThreadStream",
    "rdc",
    "wildStore",
    "refusedLaunch",
    "memoryLimit",
    "deviceReset",
    "perDeviceState",
    "conditionalLoop",
    "exitWithoutCleanup",
    "exitFromThread",
    "managedMemory",
    "managedVariables",
]
DRIVER_PROGRAMS = [
    "virtualMemory",
    "mappedMemory",
    "pinnedInside",
    "pinnedCopies",
    "pinnedLive",
    "volumeCopies",
    "arrays",
    "sparseArrays",
    "sparseRefusals",
    "sparseBehind",
    "memoryPools",
    "memoryCalls",
    "textures",
    "textureReferences",
    "olderNames",
    "vectorAddDriver",
    "launchForms",
    "nvrtcModule",
    "orderTransfers",
    "orderHostFunction",
    "orderCrossedCopies",
    "captureModes",
    "manyThreads",
    "privateTables",
    "jitLink",
    "graphNodes",
    "graphHost",
    "captureForms",
    "moduleContents",
    "stateQueries",
    "olderGraphNames",
    "conditionalNodes",
    "tensorMaps",
    "greenContexts",
    "sharedMemory",
    "sharedEvents",
    "sharedDescriptors",
    "sharedUploads",
    "earlyCalls",
    "diagnostics",
    "plainCopies",
    "copiesInOrder",
    "managedByDriver",
]
# Programs that are their own proof and have no buffers to compare.
WITHOUT_RESULTS = {
    "devicePrintf",
    "deviceAssert",
    "wildStore",
    "memoryLimit",
    "exitWithoutCleanup",
    "exitFromThread",
    "copiesAcrossDevices",
    "diagnostics",
}
# Programs that show what Outboard promises beyond the driver, which may fail them.
BEYOND_THE_DRIVER = {
    "uploadOrder",
    "sharedUploads",
    "copiesAcrossDevices",
    "perThreadStream",
    "sparseBehind",
    "copiesInOrder",
}
# Linked with older CUDA runtimes, which start and launch in other ways: 12.9 and 11.8.
OLDER = {
    "static12": [
        *("matrixMul", "reduction", "symbols", "streams", "perThreadStream", "managedVariables")
    ],
    "shared12": [
        *("matrixMul", "reduction", "symbols", "streams", "perThreadStream", "managedVariables")
    ],
    "shared11": ["matrixMul", "reduction", "symbols", "perThreadStream", "managedVariables"],
}
# On two devices of one server.
TWO_DEVICE_CASES = [
    ("driver", "peerMemory"),
    ("driver", "peerAccess"),
    ("driver", "earlyCalls"),
    ("static", "perDeviceState"),
    ("static", "copiesAcrossDevices"),
    ("static", "managedMemory"),
]
# Whose host memory is shared with the server on one host, and copied over a network.
HOST_MEMORY_CASES = [
    ("driver", "mappedMemory"),
    ("driver", "pinnedInside"),
    ("driver", "pinnedCopies"),
    ("driver", "managedByDriver"),
    ("static", "managedMemory"),
    ("static", "managedVariables"),
    ("driver", "graphHost"),
    ("driver", "orderCrossedCopies"),
    ("driver", "memoryCalls"),
    ("driver", "textureReferences"),
    ("driver", "olderNames"),
    ("static", "streams"),
    ("static", "perThreadStream"),
]
CASES = [
    *[(kind, name) for name in RUNTIME_PROGRAMS for kind in ("static", "shared")],
    *[("driver", name) for name in DRIVER_PROGRAMS],
    *[(kind, name) for kind, names in OLDER.items() for name in names],
]
