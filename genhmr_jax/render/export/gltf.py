"""The container of glTF 2.0: one JSON document and one binary buffer in a .glb file.

Specification: https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html; section numbers are its.
"""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from genhmr_jax.io.atomic import atomic_path

VERTEX_DATA, INDEX_DATA = 34962, 34963  # targets of buffer views (5.11.5)
_COMPONENTS = {
    np.dtype(np.int16): 5122,
    np.dtype(np.uint8): 5121,
    np.dtype(np.uint16): 5123,
    np.dtype(np.uint32): 5125,
    np.dtype(np.float32): 5126,
}  # 5.1.3
_MAGIC, _VERSION, _JSON, _BINARY = 0x46546C67, 2, 0x4E4F534A, 0x004E4942  # 4.4


class Document:
    """A glTF document that grows: lists of objects, and accessors of arrays.

    Attributes:
      lists: the top-level lists, such as "nodes", by name.
    """

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {"accessors": [], "bufferViews": []}
        self._data = bytearray()
        self._known: dict[tuple, int] = {}

    def add(self, name: str, item: dict[str, Any]) -> int:
        """Append an object to a list, and return its index."""
        self.lists.setdefault(name, []).append(item)
        return len(self.lists[name]) - 1

    def accessor(
        self,
        array: np.ndarray,
        kind: str,
        target: int | None = None,
        *,
        normalized: bool = False,
        bounds: bool = False,
    ) -> int:
        """Store an array, and return the index of its accessor; equal arrays are stored once.

        Args:
          array: (N,) or (N, components), of the type that is stored.
          kind: "SCALAR", "VEC3", "VEC4" or "MAT4".
          target: VERTEX_DATA, INDEX_DATA, or None for other data.
          normalized: whether integers stand for fractions (3.6.2.2).
          bounds: store the minimum and maximum.
        """
        array = np.ascontiguousarray(array)
        data = array.tobytes()
        key = (data, array.dtype.str, kind, target, normalized, bounds)
        if key in self._known:
            return self._known[key]
        self._data += bytes(-len(self._data) % 4)
        view = {"buffer": 0, "byteOffset": len(self._data), "byteLength": len(data)}
        if target is not None:
            view["target"] = target
        self._data += data
        item = {
            "bufferView": self.add("bufferViews", view),
            "componentType": _COMPONENTS[array.dtype],
            "count": len(array),
            "type": kind,
        }
        if normalized:
            item["normalized"] = True
        if bounds:
            rows = array.reshape(len(array), -1)
            item |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        self._known[key] = self.add("accessors", item)
        return self._known[key]

    def save(self, path: str | os.PathLike, roots: list[int]) -> None:
        """Write the .glb, whole or not at all (4.4).

        Args:
          path: of the file.
          roots: indices of the nodes of the scene.

        Raises:
          InputError: the file cannot be written.
        """
        data = bytes(self._data) + bytes(-len(self._data) % 4)
        document = {
            "asset": {"version": "2.0", "generator": "genhmr_jax"},
            "scene": 0,
            "scenes": [{"nodes": roots}],
            **self.lists,
            "buffers": [{"byteLength": len(self._data)}],
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        with atomic_path(path) as temporary, Path(temporary).open("wb") as file:
            file.write(struct.pack("<3I", _MAGIC, _VERSION, 28 + len(text) + len(data)))
            file.write(struct.pack("<2I", len(text), _JSON) + text)
            file.write(struct.pack("<2I", len(data), _BINARY) + data)
